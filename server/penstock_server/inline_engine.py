"""The inline engine: a whole study in this process, in a fixed order, so that a seed gives the same weights twice.

A Python solver is advanced here, `concurrency` simulations in turn, one time step each. Any other solver is run by one worker,
one simulation after the other, through the same sockets as in the Ray engine. Either way one thread does everything that touches data: it
takes a piece, and when the buffer has no room for a sample, or its limiter holds producers back, trains a batch to make some.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from penstock_client import Client, Solver, stream_solver
from penstock_client.memory_transport import MemoryTransport
from penstock_server.agreement import Schema
from penstock_server.auth import StudyKeys
from penstock_server.buffer import Slot
from penstock_server.checkpoint import Checkpoint
from penstock_server.config import Study
from penstock_server.coordinator import Coordinator
from penstock_server.engine import StudyStatus
from penstock_server.events import EventLog
from penstock_server.metrics import Metrics, write_targets
from penstock_server.plan import make_plan, make_welcome, next_incarnation, write_connect_file
from penstock_server.rank import TrainerRank
from penstock_server.report import build_report, study_outcome, study_status, write_report
from penstock_server.study_sockets import StudySockets

CONTROL, DATA = "control", "data"


class InlineEngine:
    """Runs one study without Ray; see `penstock_server.engine.Engine`.

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
        self._events = EventLog(directory / "events.jsonl")
        self._metrics = Metrics("coordinator", study.study.name)
        plan = make_plan(study)
        schema = None if restore is None else Schema.from_state_dict(restore.parts["schema"])
        self._keys = StudyKeys.make()
        self._rank = TrainerRank(
            study,
            directory,
            rank=0,
            incarnation=self._incarnation,
            held_out=study.solver.simulations,
            simulations=len(plan),
            put=self._put,
            coordinator_state=lambda: self._coordinator.state_dict(),
            on_static=lambda name: self._coordinator.static_arrived(name),
            restore=restore,
        )
        self._ended = threading.Event()
        self._stopped = ""
        self._error = ""
        self._sockets: StudySockets | None = None
        if solver is None:
            self._sockets = StudySockets(
                study.server.host,
                self._keys,
                self._rank,
                on_production_over=self._drain,
                on_error=self._broken,
            )
        endpoint = DATA if self._sockets is None else self._sockets.data_endpoint
        self._coordinator = Coordinator(
            plan,
            make_welcome(study, (endpoint,), heartbeats=solver is None),
            incarnation=self._incarnation,
            fields=study.fields,
            samples=study.samples,
            seeds=len(study.parameters.seeds),
            retries=study.solver.retries,
            client_timeout=study.server.client_timeout,
            on_schema=self._configure,
            on_refused=self._metrics.refused,
            events=self._events,
            schema=schema,
        )
        if restore is not None and schema is not None:
            self._rank.configure(schema)
            self._coordinator.load_state_dict(restore.parts["coordinator"], self._rank.arrived)
        self._begun = time.monotonic()
        self._thread = threading.Thread(target=self._produce, name="penstock-inline", daemon=True)

    def start(self) -> Path:
        control = CONTROL if self._sockets is None else self._sockets.control_endpoint
        path = write_connect_file(self._directory, self._study, self._incarnation, control, self._keys)
        host = self._study.server.host
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
        rank = self._rank.status()
        status, message = study_outcome([rank], self._coordinator.counts(), self._error, self._stopped)
        report = build_report(
            self._study,
            status=status,
            message=message,
            wall_seconds=time.monotonic() - self._begun,
            incarnations=self._incarnation,
            simulations=self._coordinator.counts(),
            expected=self._coordinator.expected(self._rank.arrived),
            unique=self._rank.trained.total(),
            ranks=[rank],
            control_refused=self._metrics.refusals(),
            blocked_seconds=self._coordinator.blocked_seconds,
            failures=self._coordinator.failures(),
        )
        write_report(self._directory, report)
        self._events.write(status, message=message)
        self._events.close()
        return report

    # One thread does all of what follows ---------------------------------------------------------------------------

    def _put(self, slot: Slot) -> bool:
        """Commit a sample, training until there is room for it; False when training has ended meanwhile."""
        buffer = self._rank.buffer
        assert buffer is not None
        try:
            while not self._rank.over:
                if buffer.try_commit(slot):
                    return True
                batch = buffer.try_get(self._study.training.batch_size)
                if batch is None:
                    raise RuntimeError(f"the buffer takes no sample and gives no batch: {buffer.stats()}")
                self._rank.train_batch(batch)
        except (
            Exception
        ) as error:  # training's trouble is not the fault of the simulation that happened to bring a sample
            self._broken(error)
        buffer.discard(slot)
        return False

    def _drain(self) -> None:
        """Production has ended: train on what the buffer holds, then conclude."""
        try:
            torch.set_num_threads(self._threads)
            self._rank.end_production()
            self._rank.drop_incomplete()
            buffer = self._rank.buffer
            while buffer is not None and not self._rank.over:
                batch = buffer.try_get(self._study.training.batch_size)
                if batch is None:
                    self._rank.finish("production ended")
                    break
                self._rank.train_batch(batch)
            self._rank.conclude()
        except BaseException as error:
            self._broken(error)
        self._ended.set()

    def _produce(self) -> None:
        """Advance `concurrency` simulations in turn, one time step each, until none is left; then drain."""
        assert self._solver is not None
        torch.set_num_threads(self._threads)
        try:
            transport = MemoryTransport(
                {CONTROL: self._direct(self._coordinator.handle), DATA: self._direct(self._rank.handle)}
            )
            clients = [
                Client(transport=transport, control=CONTROL, incarnation=self._incarnation)
                for _ in range(self._study.solver.concurrency)
            ]
            running: dict[int, Iterator[int]] = {}
            for place in itertools.cycle(range(len(clients))):
                if self._rank.over:
                    self._coordinator.stop()
                    for solver in running.values():
                        solver.close()  # type: ignore[attr-defined]
                    break
                if place not in running and self._coordinator.has_waiting:
                    simulation = clients[place].next_simulation()
                    assert simulation is not None
                    running[place] = stream_solver(
                        self._solver, simulation, tuple(self._study.fields), self._study.solver.every
                    )
                if place in running and next(running[place], None) is None:
                    del running[place]
                if not running and not self._coordinator.has_waiting:
                    break
        except BaseException as error:
            self._broken(error)
        self._drain()

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
        self._error = self._error or f"{type(error).__name__}: {error}"
        self._rank.fail(self._error)
        self._ended.set()
