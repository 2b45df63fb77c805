"""The inline engine: a whole study in this process, in a fixed order, so that a seed gives the same weights every time.

A Python solver is advanced here, `concurrency` simulations in turn, one time step each. Any other solver is run by one
worker, one simulation after the other, through the same sockets as in the Ray engine. In both cases one thread does
everything that touches data: it takes a piece and, when the buffer has no room for a sample or its limiter holds
producers back, trains a batch to make room.

With a Python solver a study that was stopped or killed resumes as if it had not been: the same time steps in the same
order, the same weights bit for bit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from penstock_client import ServerLost, Solver
from penstock_client.memory_transport import MemoryTransport
from penstock_server.buffer import Reserved
from penstock_server.checkpoint import Checkpoint
from penstock_server.coordinator import Coordinator
from penstock_server.engines.ending import StudyEnd
from penstock_server.engines.engine import StudyStatus
from penstock_server.engines.journal import RunJournal
from penstock_server.engines.production import Production
from penstock_server.engines.results import StudyResults, coordinator_results, coordinator_status, study_status
from penstock_server.engines.setup import configure_from_checkpoint, make_coordinator, set_coordinator_gauges
from penstock_server.engines.sockets import StudySockets
from penstock_server.network import Assignment, next_incarnation, open_keys, own_address, write_connect_file
from penstock_server.study import Schema, Study
from penstock_server.telemetry import Metrics, ServerRun
from penstock_server.trainer_rank import RankCallbacks, TrainerRank

CONTROL, DATA = "control", "data"


class InlineEngine:
    """Runs one study without Ray; see `penstock_server.engines.engine.Engine`.

    Args:
        study: the study.
        directory: its run directory.
        threads: CPU threads of the training.
        solver: a Python solver to advance in this process; None where workers connect through sockets.
        restore: the checkpoint to go on from; None for a new study.
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
        study = _with_limiter(study)
        self._study, self._directory, self._threads, self._solver = study, directory, threads, solver
        self._incarnation = next_incarnation(directory)
        self._journal = RunJournal(study, directory)
        self._metrics = Metrics("coordinator", study.study.name)
        self._run = ServerRun(self._incarnation, self._journal.events, self._metrics)
        self._keys = open_keys(directory)
        self._end = StudyEnd(self._halt)
        # The coordinator's state when training ended, before clients handed back their work.
        self._kept: dict[str, Any] = {}
        self._rank = TrainerRank(
            study,
            directory,
            rank=0,
            incarnation=self._incarnation,
            callbacks=RankCallbacks(
                put=self._put,
                coordinator_state=lambda: self._kept or self._coordinator_state(),
                on_static=self._static_arrived,
            ),
            restore=restore,
        )
        before = {} if restore is None else restore.parts["coordinator"]
        self._production = (
            None if solver is None else Production(study, solver, self._journal.events, before.get("production"))
        )
        restored = None if restore is None else configure_from_checkpoint(self._rank, restore)

        def coordinator(
            endpoints: tuple[str, ...],
            on_schema: Callable[[Schema], bool],
            on_assignment: Callable[[Assignment], bool],
        ) -> Coordinator:
            return make_coordinator(
                study,
                self._run,
                endpoints,
                on_schema=on_schema,
                on_assignment=on_assignment,
                in_process=self._production is not None,
                restored=restored,
                again=() if self._production is None else self._production.under_way,
            )

        self._sockets: StudySockets | None = None
        if self._production is not None:
            self._coordinator = coordinator((DATA,), self._configure, self._note_assignment)
            if self._rank.training is not None:  # restored
                self._production.announce_again(self._rank.training.ingest)
        else:
            self._sockets = StudySockets(
                own_address(study.server.host),
                self._keys,
                self._rank,
                coordinator,
                metrics=self._metrics,
                max_message=study.server.max_message,
                on_production_over=self._drain,
                on_error=self._broken,
                on_hopeless=self.fail,
            )
            self._coordinator = self._sockets.coordinator
        self._thread = threading.Thread(target=self._produce, name="penstock-inline", daemon=True)

    def start(self) -> Path:
        """Open the sockets, or start the thread that advances the solvers."""
        control = CONTROL if self._sockets is None else self._sockets.control_endpoint
        path = write_connect_file(self._directory, self._study, self._incarnation, control, self._keys)
        host = own_address(self._study.server.host)
        self._journal.write_targets([self._metrics.serve(host), self._rank.metrics.serve(host)])
        self._journal.events.write("started", incarnation=self._incarnation, engine="inline")
        if self._sockets is not None:
            self._sockets.start()
        else:
            self._thread.start()
        return path

    def status(self) -> StudyStatus:
        """Return the state of the study; set the gauges of the coordinator."""
        set_coordinator_gauges(self._coordinator, self._run)
        coordinator = coordinator_status(self._coordinator)
        return study_status(
            [self._rank.status()],
            replace(coordinator, wanted_workers=0 if self._solver is not None else min(1, coordinator.wanted_workers)),
            elapsed=self._journal.elapsed,
            error=self._end.error,
            stopped=self._end.stopped,
        )

    def worker_exited(self, pid: int, code: int | None, message: str) -> None:
        """Note that a worker process has ended."""
        if self._sockets is not None and not self._end.ended:
            self._sockets.worker_exited(pid, f"exit code {code}: {message}")

    def stop(self, reason: str) -> None:
        """End the study early."""
        self._end.stop(reason)

    def fail(self, reason: str) -> None:
        """End the study because it cannot go on."""
        self._end.fail(reason)

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds; return True when the study has ended."""
        return self._end.wait(timeout)

    def close(self) -> dict[str, Any]:
        """End the study and return its report."""
        self._end.close()
        if self._sockets is not None:
            self._sockets.close()
        for metrics in (self._metrics, self._rank.metrics):
            metrics.close()
        if self._rank.training is not None:
            self._rank.training.loop.close()
        results = StudyResults(
            [self._rank.status()],
            unique=self._rank.ledgers.trained.total(),
            coordinator=coordinator_results(
                self._coordinator, self._metrics, self._rank.arrived, self._journal.warnings()
            ),
        )
        return self._journal.report(results, self._end, incarnation=self._incarnation)

    def _halt(self, reason: str) -> None:
        self._rank.stop(reason)
        if self._sockets is not None:
            self._sockets.stop()

    def _static_arrived(self, name: str) -> None:
        if self._sockets is None:
            self._coordinator.static_arrived(name)
        else:
            self._sockets.static_arrived(name)

    # All methods below run on one thread ---------------------------------------------------------------------------

    def _put(self, slots: Reserved) -> bool:
        """Commit samples, training until there is room for them; False when training has ended meanwhile."""
        training = self._rank.training
        assert training is not None  # slots of its buffer are filled
        buffer = training.buffer
        self._putting(True)
        try:
            while not self._rank.over:
                if buffer.try_commit_many(slots, slots.settled) == len(slots):
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
        except Exception as error:  # a failure of training must not fail the simulation that sent this sample
            self._broken(error)
        self._keep()
        buffer.discard_many(slots, slots.settled)
        return False

    def _drain(self) -> None:
        """Train on the rest of the buffer after production has ended, then conclude."""
        if self._end.ended:  # after a failure the study resumes from its last checkpoint
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
        self._end.finish()

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
                if self._coordinator.hopeless:
                    self.fail(self._coordinator.hopeless)
            if self._coordinator.hopeless:
                self.fail(self._coordinator.hopeless)
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
        """Keep the coordinator's present state for later checkpoints, when training ends before production."""
        if self._production is not None:
            self._kept = self._kept or self._coordinator_state()

    def _direct(self, handle: Any) -> Any:
        def handler(peer: bytes, frames: list[bytes]) -> list[list[bytes]]:
            try:
                return [reply for _, reply in handle(peer, frames, time.monotonic())]
            except Exception as error:  # of the server: the client must not take it for one of its solver
                self._broken(error)
                raise ServerLost(self._end.error) from error

        return handler

    def _configure(self, schema: Schema) -> bool:
        self._rank.configure(schema)
        return True

    def _note_assignment(self, assignment: Assignment) -> bool:
        self._rank.admissions.note(assignment)
        if assignment.over:
            self._rank.release(assignment)
        return True

    def _broken(self, error: BaseException) -> None:
        self._end.note_error(self._journal.log.failure(error))
        self._rank.fail(self._end.error)
        self._end.finish()


def _with_limiter(study: Study) -> Study:
    """Set [buffer] presentations_per_sample where the study does not.

    Without other processes to race against, something must say how much is trained for each sample received: one batch,
    or, where draws remove samples, one presentation.
    """
    if study.buffer.presentations_per_sample:
        return study
    ratio = float(study.training.batch_size) if study.buffer.policy == "reservoir" else 1.0
    buffer = study.buffer.model_copy(update={"presentations_per_sample": ratio})
    return study.model_copy(update={"buffer": buffer})
