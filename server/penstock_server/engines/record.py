"""Recording a study: the stream that a trainer rank would take goes into one file, and nothing is trained."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock_server.coordinator import Coordinator, Point, make_plan, make_welcome
from penstock_server.engines.engine import StudyStatus
from penstock_server.engines.sockets import StudySockets
from penstock_server.ingest import Ingest, Ledger, SampleSinks, SimulationIds, refuse_before_schema
from penstock_server.network import Message, next_incarnation, open_keys, own_address, write_connect_file
from penstock_server.recording import RecordingWriter
from penstock_server.study import Schema, Study
from penstock_server.telemetry import EventLog, Metrics, ProcessLog, ServerRun


class Recorder:
    """Stands where a trainer rank stands: every whole time step of every simulation goes into the file, each once.

    To ingest, all simulations are held-out ones, whose time steps go on whole and unbuffered.
    """

    def __init__(
        self, study: Study, plan: Sequence[Point], path: Path, *, incarnation: int, on_static: Callable[[str], None]
    ) -> None:
        self._study, self._plan, self._path = study, plan, path
        self._incarnation, self._on_static = incarnation, on_static
        self.metrics = Metrics("recorder", study.study.name)
        self.arrived = Ledger()
        self.over = ""
        self.writer: RecordingWriter | None = None
        self._ingest: Ingest | None = None

    def configure(self, schema: Schema) -> None:
        """The fields are known: open the file."""
        study, spec = self._study, schema.spec
        points = np.array([point.parameters[: len(spec.parameters)] for point in self._plan], np.float64)
        self.writer = RecordingWriter(
            self._path,
            spec,
            points=points.reshape(len(self._plan), len(spec.parameters)),
            held_out=np.array([point.validation for point in self._plan]),
            about={"study": study.study.name, "seed": study.study.seed, "time": study.samples.time},
            seeds=study.parameters.seeds,
        )
        self._ingest = Ingest(
            schema,
            study.samples,
            SimulationIds(training=0, held_out=len(self._plan)),
            SampleSinks(
                buffer=None,
                put=lambda _slot: False,
                validation=self.writer,
                statistics=lambda _inputs, _targets: None,
                trained=Ledger(),
                validated=self.arrived,
                on_static=self._take_static,
            ),
            incarnation=self._incarnation,
            credit=study.buffer.credit,
            metrics=self.metrics,
        )

    def handle(self, peer: bytes, frames: list[bytes], now: float) -> list[Message]:
        """One message of the data socket; see `Ingest.handle`."""
        if self._ingest is None:
            return refuse_before_schema(peer, self._incarnation, self.metrics)
        return self._ingest.handle(peer, frames, now)

    def _take_static(self, name: str, values: NDArray[np.float64]) -> None:
        assert self.writer is not None
        self.writer.add_static(name, values)
        self._on_static(name)


class RecordEngine:
    """Records one study, solved by workers; see `penstock_server.engines.engine.Engine`. Its report is for the command that records.

    Args:
        directory: of connect.json, events and logs while it runs. path: of the recording, which is there only once it is whole.
    """

    def __init__(self, study: Study, directory: Path, path: Path) -> None:
        self._study, self._directory, self._path = study, directory, path
        self._incarnation = next_incarnation(directory)
        self._log = ProcessLog(directory, "server")
        self._events = EventLog(directory / "events.jsonl")
        self._keys = open_keys(directory)
        plan = make_plan(study)
        self._recorder = Recorder(
            study,
            plan,
            path,
            incarnation=self._incarnation,
            on_static=lambda name: self._coordinator.static_arrived(name),
        )
        self._sockets = StudySockets(
            own_address(study.server.host),
            self._keys,
            self._recorder,
            metrics=self._recorder.metrics,
            max_message=study.server.max_message,
            on_production_over=self._conclude,
            on_error=self._broken,
        )
        self._coordinator = Coordinator(
            plan,
            make_welcome(study, (self._sockets.data_endpoint,)),
            study,
            ServerRun(self._incarnation, self._events, self._recorder.metrics),
            on_schema=self._sockets.configure,
        )
        self._begun = time.monotonic()
        self._ended = threading.Event()
        self._stopped = self._error = ""
        self._written = False

    def start(self) -> Path:
        path = write_connect_file(
            self._directory, self._study, self._incarnation, self._sockets.control_endpoint, self._keys
        )
        self._events.write("started", incarnation=self._incarnation, engine="record")
        self._sockets.serve(self._coordinator)
        return path

    def status(self) -> StudyStatus:
        phase, message = self._outcome() if self._ended.is_set() else ("recording", "")
        return StudyStatus(
            phase=phase,
            elapsed=time.monotonic() - self._begun,
            simulations=self._coordinator.counts(),
            received=self._recorder.arrived.total(),
            wanted_workers=self._coordinator.wanted_workers,
            given_up=self._coordinator.given_up(),
            message=message,
        )

    def worker_exited(self, pid: int, code: int | None, message: str) -> None:
        if not self._ended.is_set():
            self._sockets.worker_exited(pid, f"exit code {code}: {message}")

    def stop(self, reason: str) -> None:
        self._stopped = self._stopped or reason
        self._recorder.over = reason
        self._sockets.stop()

    def fail(self, reason: str) -> None:
        self._error = self._error or reason
        self.stop(reason)

    def wait(self, timeout: float) -> bool:
        return self._ended.wait(timeout)

    def close(self) -> dict[str, Any]:
        """End it; what has not become a whole recording by now is removed.

        Returns status ("finished", "stopped" or "failed"), message, simulations, failures, time_steps, duplicates_dropped, bytes
        of the file, and wall_seconds.
        """
        if not self._ended.is_set():
            self.stop("closed")
            self._ended.wait()
        self._sockets.close()
        writer, counts = self._recorder.writer, self._coordinator.counts()
        if writer is not None and not self._written:
            writer.discard()
        status, message = self._outcome()
        self._events.write(status, message=message)
        self._log.close()
        return {
            "status": status,
            "message": message,
            "simulations": counts,
            "failures": self._coordinator.failures(),
            "time_steps": 0 if writer is None else writer.time_steps,
            "duplicates_dropped": self._recorder.metrics.total("duplicates_dropped"),
            "bytes": self._path.stat().st_size if self._written else 0,
            "wall_seconds": time.monotonic() - self._begun,
        }

    def _outcome(self) -> tuple[str, str]:
        if self._written:
            return "finished", ""
        if self._error:
            return "failed", self._error
        if self._stopped:
            return "stopped", self._stopped
        return "failed", f"none of the {self._coordinator.counts().requested} simulations has sent a time step"

    def _conclude(self) -> None:
        """On the data thread, which alone writes: no time step will come any more."""
        writer = self._recorder.writer
        if writer is not None and writer.time_steps and not self._stopped:
            failed = self._coordinator.failures()
            writer.finish(np.array([i not in failed for i in range(self._coordinator.counts().requested)]))
            self._written = True
        self._ended.set()

    def _broken(self, error: BaseException) -> None:
        self._error = self._error or self._log.failure(error)
        self._recorder.over = self._error
        self._ended.set()
