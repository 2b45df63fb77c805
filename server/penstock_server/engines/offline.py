"""The offline engine: the training loop of a trainer rank on a recording. No coordinator, no sockets, no workers."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import torch

from penstock_client.wire import Dtype
from penstock_server.checkpoint import Checkpoint
from penstock_server.coordinator import SimulationCounts
from penstock_server.engines.engine import StudyStatus
from penstock_server.engines.outages import Outages
from penstock_server.engines.report import build_report, study_outcome, study_status, write_report
from penstock_server.network import CONNECT_FILE, own_address
from penstock_server.recording import FileSource, Recording, RecordingReader
from penstock_server.study import Schema, Study
from penstock_server.telemetry import EventLog, ProcessLog, read_lines, write_targets
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

    Before the first batch, normalisation takes its statistics from all that is trained on, as one does where it is at hand.

    Args:
        study, directory: what runs, and where its run directory is. threads: of the training. restore: the checkpoint to go on from.

    Raises RecordingError where the file is none.
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
        self._log = ProcessLog(directory, "server")
        self._events = EventLog(directory / EVENTS)
        self._outages = Outages(directory)
        self._context = RankContext(study, directory, restore=restore)
        self._loop: TrainingLoop | None = None  # until the training thread has made it
        self._samples = 0
        self._stopped = self._error = ""
        self._begun = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="penstock-offline", daemon=True)

    def start(self) -> Path:
        """Begin to train. The path returned is of a connect.json that is not there: nobody needs it."""
        endpoint = self._context.metrics.serve(own_address(self._study.server.host))
        write_targets(self._directory / "targets.json", self._study.study.name, [endpoint])
        self._events.write("started", incarnation=self._incarnation, engine="offline")
        for simulation in [*self._training.tolist(), *self._held_out.tolist()]:
            self._events.write("finished" if self._recording.finished[simulation] else "failed", simulation=simulation)
        self._thread.start()
        return self._directory / CONNECT_FILE

    def status(self) -> StudyStatus:
        return study_status(
            [self._rank_status()],
            self._counts,
            wanted_workers=0,
            elapsed=time.monotonic() - self._begun,
            production_over=False,
            error=self._error,
            stopped=self._stopped,
        )

    def worker_exited(self, pid: int, code: int | None, message: str) -> None:
        raise RuntimeError(f"worker {pid} ended with code {code} ({message}): an offline study has none")

    def stop(self, reason: str) -> None:
        self._stopped = self._stopped or reason
        self._context.finish(reason)
        if self._loop is not None:
            self._loop.stop(reason)

    def fail(self, reason: str) -> None:
        self._error = self._error or reason
        self.stop(reason)

    def wait(self, timeout: float) -> bool:
        return self._ended.wait(timeout)

    def close(self) -> dict[str, Any]:
        if not self._ended.is_set():
            self.stop("closed")
            self._ended.wait()
        self._context.metrics.close()
        rank = self._rank_status()
        self._outages.note([rank])
        status, message = study_outcome([rank], self._counts, self._error, self._stopped)
        report = build_report(
            self._study,
            status=status,
            message=message,
            wall_seconds=time.monotonic() - self._begun,
            incarnations=self._incarnation,
            simulations=self._counts,
            expected=self._samples,
            unique=self._samples,
            ranks=[rank],
            control_refused={},
            blocked_seconds=0.0,
            failures={},
            warnings=(*self._events.warnings(), *self._log.warnings()),
            outages=self._outages.ended,
        )
        write_report(self._directory, report)
        self._events.write(status, message=message)
        self._log.close()
        return report

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
            if (
                not self._context.over
            ):  # else it was stopped before its statistics were whole: there is nothing to resume
                self._loop = TrainingLoop(self._context, parts, RecordedSupply(source, self._context.metrics))
                self._loop.train()
        except BaseException as error:
            self._error = self._error or self._log.failure(error)
            self._context.fail(self._error)
            if self._loop is not None:
                self._loop.stop("failed")
        self._ended.set()

    def _schema(self) -> Schema:
        samples = self._study.samples
        spec = self._recording.spec(samples.window, samples.bundle)
        ids = {field.name: number for number, field in enumerate(spec.fields)}
        dtypes = dict.fromkeys(ids.values(), Dtype.FLOAT32)
        return Schema(spec, ids, dtypes, len(self._recording.seeds))

    def _take_in(self, parts: TrainingParts) -> None:
        """Take what a stream brings along the way: statistics of the training part, the held-out time steps, the mesh."""
        reader = RecordingReader(self._recording, self._study.samples.time)
        for simulation in self._training.tolist():
            if self._context.over:
                return
            inputs, targets = reader.read(simulation, 0, int(self._recording.steps[simulation]))
            parts.normaliser.update(inputs[:, None], targets[:, None])
        for simulation in self._held_out.tolist():
            inputs, targets = reader.read(simulation, 0, int(self._recording.steps[simulation]))
            for step in range(len(inputs)):
                parts.validation.add(simulation, step, inputs[step], targets[step])
        static = reader.static_fields()
        reader.close()
        if static:
            add_to_mesh(self._directory, static)


def _starts(events: Path) -> int:
    """How often a study has been started in this run directory."""
    return sum(event["event"] == "started" for event in read_lines(events))
