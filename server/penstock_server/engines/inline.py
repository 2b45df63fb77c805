"""The inline engine: a whole study in this process, in a fixed order, so that a seed gives the same weights twice.

A Python solver is advanced here, `concurrency` simulations in turn, one time step each. Any other solver is run by one worker,
one simulation after the other, through the same sockets as in the Ray engine. Either way one thread does everything that touches data: it
takes a piece, and when the buffer has no room for a sample, or its limiter holds producers back, trains a batch to make some.

With a Python solver a study that was stopped, or killed, goes on from its checkpoint as if it had not been: the same time steps in the
same order, the same weights bit for bit.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import torch

from penstock_client import Solver
from penstock_client.memory_transport import MemoryTransport
from penstock_server.buffer import Slot
from penstock_server.checkpoint import Checkpoint
from penstock_server.coordinator import Coordinator, make_plan, make_spares, make_welcome
from penstock_server.engines.engine import StudyStatus
from penstock_server.engines.outages import Outages
from penstock_server.engines.production import Production
from penstock_server.engines.report import build_report, study_outcome, study_status, write_report
from penstock_server.engines.sockets import StudySockets
from penstock_server.network import next_incarnation, open_keys, own_address, write_connect_file
from penstock_server.study import Schema, Study
from penstock_server.telemetry import EventLog, Metrics, ProcessLog, ServerRun, write_targets
from penstock_server.trainer_rank import RankCallbacks, TrainerRank

CONTROL, DATA = "control", "data"


class InlineEngine:
    """Runs one study without Ray; see `penstock_server.engines.engine.Engine`.

    Args:
        study, directory: what runs, and where its run directory is.
        threads: of the training. solver: a Python solver to advance here; None: workers connect through sockets.
        restore: the checkpoint to go on from.
    """

    def __init__(
        self,
        study: Study,
        directory: Path,
        *,
        threads: int,
        solver: Solver | None = None,
        restore: Checkpoint | None = None,
    ) -> None:
        if not study.buffer.presentations_per_sample:
            # Without other processes to race against, something must say how much is trained per sample: one batch, or, where
            # draws remove, one presentation.
            ratio = float(study.training.batch_size) if study.buffer.policy == "reservoir" else 1.0
            buffer = study.buffer.model_copy(update={"presentations_per_sample": ratio})
            study = study.model_copy(update={"buffer": buffer})
        self._study, self._directory, self._threads, self._solver = study, directory, threads, solver
        self._incarnation = next_incarnation(directory)
        self._log = ProcessLog(directory, "server")
        self._events = EventLog(directory / "events.jsonl")
        self._outages = Outages(directory)
        self._metrics = Metrics("coordinator", study.study.name)
        plan = make_plan(study)
        schema = None if restore is None else Schema.from_state_dict(restore.parts["schema"])
        self._keys = open_keys(directory)
        self._rank = TrainerRank(
            study,
            directory,
            rank=0,
            incarnation=self._incarnation,
            callbacks=RankCallbacks(
                put=self._put,
                coordinator_state=lambda: self._kept or self._coordinator_state(),
                on_static=lambda name: self._coordinator.static_arrived(name),
            ),
            restore=restore,
        )
        self._ended = threading.Event()
        self._stopped = ""
        self._error = ""
        self._kept: dict[
            str, Any
        ] = {}  # the coordinator's state as training ended, before clients handed back what they had
        coordinator_before = {} if restore is None else restore.parts["coordinator"]
        self._production = (
            None if solver is None else Production(study, solver, self._events, coordinator_before.get("production"))
        )
        self._sockets: StudySockets | None = None
        if solver is None:
            self._sockets = StudySockets(
                own_address(study.server.host),
                self._keys,
                self._rank,
                metrics=self._metrics,
                max_message=study.server.max_message,
                on_production_over=self._drain,
                on_error=self._broken,
            )
        endpoint = DATA if self._sockets is None else self._sockets.data_endpoint
        self._coordinator = Coordinator(
            plan,
            make_welcome(study, (endpoint,), in_process=solver is not None),
            study,
            ServerRun(self._incarnation, self._events, self._metrics),
            on_schema=self._configure,
            schema=schema,
            spares=make_spares(study),
        )
        if restore is not None and schema is not None:
            self._rank.configure(schema)
            again = [] if self._production is None else self._production.under_way
            self._coordinator.load_state_dict(coordinator_before, self._rank.arrived, again=again)
            if self._production is not None and self._rank.training is not None:
                self._production.announce_again(self._rank.training.ingest)
        self._begun = time.monotonic()
        self._thread = threading.Thread(target=self._produce, name="penstock-inline", daemon=True)

    def start(self) -> Path:
        control = CONTROL if self._sockets is None else self._sockets.control_endpoint
        path = write_connect_file(self._directory, self._study, self._incarnation, control, self._keys)
        host = own_address(self._study.server.host)
        write_targets(
            self._directory / "targets.json",
            self._study.study.name,
            [self._metrics.serve(host), self._rank.metrics.serve(host)],
        )
        self._events.write("started", incarnation=self._incarnation, engine="inline")
        if self._sockets is not None:
            self._sockets.serve(self._coordinator)
        else:
            self._thread.start()
        return path

    def status(self) -> StudyStatus:
        return study_status(
            [self._rank.status()],
            self._coordinator.counts(),
            wanted_workers=0 if self._solver is not None else min(1, self._coordinator.wanted_workers),
            elapsed=time.monotonic() - self._begun,
            production_over=self._coordinator.production_over,
            error=self._error,
            stopped=self._stopped,
            given_up=self._coordinator.given_up(),
        )

    def worker_exited(self, pid: int, code: int | None, message: str) -> None:
        if self._sockets is not None and not self._ended.is_set():
            self._sockets.worker_exited(pid, f"exit code {code}: {message}")

    def stop(self, reason: str) -> None:
        self._stopped = self._stopped or reason
        self._rank.stop(reason)
        if self._sockets is not None:
            self._sockets.stop()

    def fail(self, reason: str) -> None:
        self._error = self._error or reason
        self.stop(reason)

    def wait(self, timeout: float) -> bool:
        return self._ended.wait(timeout)

    def close(self) -> dict[str, Any]:
        if not self._ended.is_set():
            self.stop("closed")
            self._ended.wait()
        if self._sockets is not None:
            self._sockets.close()
        for metrics in (self._metrics, self._rank.metrics):
            metrics.close()
        rank = self._rank.status()
        self._outages.note([rank])
        status, message = study_outcome([rank], self._coordinator.counts(), self._error, self._stopped)
        report = build_report(
            self._study,
            status=status,
            message=message,
            wall_seconds=time.monotonic() - self._begun,
            incarnations=self._incarnation,
            simulations=self._coordinator.counts(),
            expected=self._coordinator.expected(self._rank.arrived),
            unique=self._rank.ledgers.trained.total(),
            ranks=[rank],
            control_refused=self._metrics.refusals(),
            blocked_seconds=self._coordinator.blocked_seconds,
            failures=self._coordinator.failures(),
            warnings=(*self._events.warnings(), *self._log.warnings()),
            outages=self._outages.ended,
        )
        write_report(self._directory, report)
        self._events.write(status, message=message)
        self._log.close()
        return report

    # One thread does all of what follows ---------------------------------------------------------------------------

    def _put(self, slot: Slot) -> bool:
        """Commit a sample, training until there is room for it; False when training has ended meanwhile."""
        training = self._rank.training
        assert training is not None  # a slot of its buffer is filled
        buffer = training.buffer
        self._putting(True)
        try:
            while not self._rank.over:
                if buffer.try_commit(slot):
                    self._putting(False)
                    return True
                batch = buffer.try_get(self._study.training.batch_size)
                if batch is not None:
                    # A setting of each thread: over sockets, the one that receives also trains.
                    if torch.get_num_threads() != self._threads:
                        torch.set_num_threads(self._threads)
                    training.loop.train_batch(batch)
                elif not self._rank.over:  # else it has been stopped, and the buffer with it, since the loop began
                    raise RuntimeError(f"the buffer takes no sample and gives no batch: {buffer.stats()}")
        except (
            Exception
        ) as error:  # training's trouble is not the fault of the simulation that happened to bring a sample
            self._broken(error)
        self._keep()
        buffer.discard(slot)
        return False

    def _drain(self) -> None:
        """Production has ended: train on what the buffer holds, then conclude."""
        if self._ended.is_set():  # broken: the last checkpoint is the one to go on from
            return
        try:
            torch.set_num_threads(self._threads)
            self._rank.end_production()
            training = self._rank.training
            while training is not None and not self._rank.over:
                batch = training.buffer.try_get(self._study.training.batch_size)
                if batch is None:
                    self._rank.context.finish("production ended")
                    break
                training.loop.train_batch(batch)
            self._rank.drop_incomplete()
            self._rank.conclude()
        except BaseException as error:
            self._broken(error)
        self._ended.set()

    def _produce(self) -> None:
        """Advance the simulations until none is left or training has ended; then drain."""
        assert self._production is not None
        torch.set_num_threads(self._threads)
        try:
            transport = MemoryTransport(
                {CONTROL: self._direct(self._coordinator.handle), DATA: self._direct(self._rank.handle)}
            )
            self._production.begin(transport, CONTROL, self._incarnation, lambda: self._rank.over)
            while not self._rank.over and self._production.advance(self._coordinator):
                pass
            if self._rank.over:
                self._keep()
                self._coordinator.stop()
            self._production.close()
        except BaseException as error:
            self._broken(error)
        self._drain()

    def _putting(self, putting: bool) -> None:
        if self._production is not None:
            self._production.putting = putting

    def _coordinator_state(self) -> dict[str, Any]:
        state = self._coordinator.state_dict()
        return state if self._production is None else {**state, "production": self._production.state_dict()}

    def _keep(self) -> None:
        """Training has ended before production: what a checkpoint from now on says of it is how it stands now."""
        if self._production is not None:
            self._kept = self._kept or self._coordinator_state()

    @staticmethod
    def _direct(handle: Any) -> Any:
        def handler(peer: bytes, frames: list[bytes]) -> list[list[bytes]]:
            return [reply for _, reply in handle(peer, frames, time.monotonic())]

        return handler

    def _configure(self, schema: Schema) -> bool:
        if self._sockets is not None:
            return self._sockets.configure(schema)
        self._rank.configure(schema)
        return True

    def _broken(self, error: BaseException) -> None:
        self._error = self._error or self._log.failure(error)
        self._rank.fail(self._error)
        self._ended.set()
