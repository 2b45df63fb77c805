"""The offline engine: the training loop of a trainer rank on a recording. No coordinator, no sockets, no workers."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import torch

from penstock_client.wire import Dtype
from penstock_server.checkpoint import Checkpoint
from penstock_server.coordinator import SimulationCounts
from penstock_server.engines.ending import StudyEnd
from penstock_server.engines.engine import StudyStatus
from penstock_server.engines.journal import RunJournal
from penstock_server.engines.results import CoordinatorResults, CoordinatorStatus, StudyResults, study_status
from penstock_server.network import CONNECT_FILE, own_address
from penstock_server.recording import FileSource, Recording, RecordingReader
from penstock_server.study import Schema, Study, sampled_steps
from penstock_server.telemetry import read_lines
from penstock_server.trainer_rank import (
    RankContext,
    RankStatus,
    RecordedSupply,
    TrainingLoop,
    TrainingParts,
    add_to_mesh,
    make_parts,
    status_before_training,
)

EVENTS = "events.jsonl"


class OfflineEngine:
    """Trains one study on its [training] source; see `penstock_server.engines.engine.Engine`.

    Before the first batch, normalisation takes its statistics from all training data, since all of it is at hand.

    Args:
        study: the study.
        directory: its run directory.
        threads: CPU threads of the training.
        restore: the checkpoint to go on from; None for a new study.

    Raises:
        RecordingError: the file is not a recording.
    """

    def __init__(self, study: Study, directory: Path, *, threads: int, restore: Checkpoint | None = None) -> None:
        self._study, self._directory, self._threads = study, directory, threads
        self._recording = Recording.open(study.training.source or "")
        self._training = self._recording.training(study.solver.simulations)
        self._held_out = self._recording.validation(study.solver.validation_simulations)
        finished = int(self._recording.finished[[*self._training, *self._held_out]].sum())
        number = len(self._training) + len(self._held_out)
        self._counts = SimulationCounts(requested=number, finished=finished, failed=number - finished)
        self._incarnation = 1 + _starts(directory / EVENTS)
        self._journal = RunJournal(study, directory)
        self._context = RankContext(study, directory, restore=restore)
        self._loop: TrainingLoop | None = None  # until the training thread has made it
        self._end = StudyEnd(self._halt)
        self._samples = 0
        self._thread = threading.Thread(target=self._run, name="penstock-offline", daemon=True)

    def start(self) -> Path:
        """Start the training thread. There is no connect.json at the path returned, since no worker needs it."""
        self._journal.write_targets([self._context.metrics.serve(own_address(self._study.server.host))])
        events = self._journal.events
        events.write("started", incarnation=self._incarnation, engine="offline")
        for simulation in [*self._training.tolist(), *self._held_out.tolist()]:
            events.write("finished" if self._recording.finished[simulation] else "failed", simulation=simulation)
        self._thread.start()
        return self._directory / CONNECT_FILE

    def status(self) -> StudyStatus:
        """Return the state of the study."""
        return study_status(
            [self._rank_status()],
            CoordinatorStatus(simulations=self._counts),
            elapsed=self._journal.elapsed,
            error=self._end.error,
            stopped=self._end.stopped,
        )

    def worker_exited(self, pid: int, code: int | None, message: str) -> None:
        """Refuse the call: an offline study has no workers."""
        raise RuntimeError(f"worker {pid} ended with code {code} ({message}): an offline study has none")

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
        self._context.metrics.close()
        coordinator = CoordinatorResults(
            simulations=self._counts, expected=self._samples, warnings=self._journal.warnings()
        )
        results = StudyResults([self._rank_status()], unique=self._samples, coordinator=coordinator)
        return self._journal.report(results, self._end, incarnation=self._incarnation)

    def _halt(self, reason: str) -> None:
        self._context.finish(reason)
        if self._loop is not None:
            self._loop.stop(reason)

    def _rank_status(self) -> RankStatus:
        return status_before_training(self._context) if self._loop is None else self._loop.status()

    def _run(self) -> None:
        torch.set_num_threads(self._threads)
        try:
            parts = make_parts(self._context, self._schema())
            source = FileSource(self._recording, self._study, pin=parts.trainer.device.type == "cuda")
            self._samples = len(source.samples)
            if self._context.restore is None:
                self._take_in(parts)
                self._context.metrics.samples_received.inc(self._samples)
            # A study that is stopped before its statistics are complete has nothing to resume.
            if not self._context.over:
                self._loop = TrainingLoop(self._context, parts, RecordedSupply(source, self._context.metrics))
                self._loop.train()
        except BaseException as error:
            self._end.note_error(self._journal.log.failure(error))
            self._context.fail(self._end.error)
            if self._loop is not None:
                self._loop.stop("failed")
        self._end.finish()

    def _schema(self) -> Schema:
        samples = self._study.samples
        spec = self._recording.spec(samples.window, samples.bundle)
        ids = {field.name: number for number, field in enumerate(spec.fields)}
        dtypes = dict.fromkeys(ids.values(), Dtype.FLOAT32)
        return Schema(spec, ids, dtypes, len(self._recording.seeds))

    def _take_in(self, parts: TrainingParts) -> None:
        """Read what a stream would bring: statistics of the training part, the held-out time steps, the mesh."""
        samples = self._study.samples
        reader = RecordingReader(self._recording, samples.time)
        for simulation in self._training.tolist():
            if self._context.over:
                return
            inputs, targets = reader.read(simulation, 0, int(self._recording.steps[simulation]))
            used = sampled_steps(len(inputs), samples.window, samples.stride)
            parts.normaliser.update(inputs[used][:, None], targets[used][:, None])
            for step in range(len(inputs)):
                parts.fingerprints.add(simulation, step, inputs[step], targets[step])
        for simulation in self._held_out.tolist():
            inputs, targets = reader.read(simulation, 0, int(self._recording.steps[simulation]))
            for step in range(len(inputs)):
                parts.validation.add(simulation, step, inputs[step], targets[step])
        static = reader.static_fields()
        reader.close()
        if static:
            add_to_mesh(self._directory, static)


def _starts(events: Path) -> int:
    """Return how often a study has been started in this run directory."""
    return sum(event["event"] == "started" for event in read_lines(events))
