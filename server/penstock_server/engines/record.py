"""The record engine: the stream of a study goes into one file, and nothing is trained."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np

from penstock_server.coordinator import make_plan
from penstock_server.engines.ending import StudyEnd, mostly_failed
from penstock_server.engines.engine import StudyStatus
from penstock_server.engines.recorder import Recorder
from penstock_server.engines.results import coordinator_status
from penstock_server.engines.setup import make_coordinator
from penstock_server.engines.sockets import StudySockets
from penstock_server.network import next_incarnation, open_keys, own_address, write_connect_file
from penstock_server.study import Study
from penstock_server.telemetry import EventLog, ProcessLog, ServerRun


class RecordEngine:
    """Records one study, solved by workers; see `penstock_server.engines.engine.Engine`.

    Its report is for the command that records, and is not written into the run directory.

    Args:
        study: the study.
        directory: folder of connect.json, events and logs while the study runs.
        path: of the recording; the file appears only once it is complete. A recording that ends earlier leaves the
            simulations that have finished in a file called `partial_path(path)`.
    """

    def __init__(self, study: Study, directory: Path, path: Path) -> None:
        # A recording has one row for each point of the plan; there is no room for replacements of failed simulations.
        study = study.model_copy(update={"solver": study.solver.model_copy(update={"on_failure": "drop"})})
        self._study, self._directory, self._path = study, directory, path
        self._begun = time.monotonic()
        self._incarnation = next_incarnation(directory)
        self._log = ProcessLog(directory, "server")
        self._events = EventLog(directory / "events.jsonl")
        self._keys = open_keys(directory)
        self._end = StudyEnd(self._halt)
        self._recorder = Recorder(
            study,
            make_plan(study),
            path,
            incarnation=self._incarnation,
            on_static=lambda name: self._sockets.static_arrived(name),
        )
        run = ServerRun(self._incarnation, self._events, self._recorder.metrics)
        self._sockets = StudySockets(
            own_address(study.server.host),
            self._keys,
            self._recorder,
            lambda endpoints, on_schema, on_assignment: make_coordinator(
                study, run, endpoints, on_schema=on_schema, on_assignment=on_assignment
            ),
            metrics=self._recorder.metrics,
            max_message=study.server.max_message,
            on_production_over=self._conclude,
            on_error=self._broken,
            on_hopeless=self.fail,
        )
        self._coordinator = self._sockets.coordinator
        self._written: Path | None = None
        self._kept = 0

    def start(self) -> Path:
        """Open the sockets."""
        path = write_connect_file(
            self._directory, self._study, self._incarnation, self._sockets.control_endpoint, self._keys
        )
        self._events.write("started", incarnation=self._incarnation, engine="record")
        self._sockets.start()
        return path

    def status(self) -> StudyStatus:
        """Return the state of the recording."""
        phase, message = self._outcome() if self._end.ended else ("recording", "")
        coordinator = coordinator_status(self._coordinator)
        return StudyStatus(
            phase=phase,
            elapsed=time.monotonic() - self._begun,
            simulations=coordinator.simulations,
            received=self._recorder.arrived.total(),
            wanted_workers=coordinator.wanted_workers,
            given_up=coordinator.given_up,
            message=message,
        )

    def worker_exited(self, pid: int, code: int | None, message: str) -> None:
        """Note that a worker process has ended."""
        if not self._end.ended:
            self._sockets.worker_exited(pid, f"exit code {code}: {message}")

    def stop(self, reason: str) -> None:
        """End the recording early; the simulations that have finished are kept in a file of another name."""
        self._end.stop(reason)

    def fail(self, reason: str) -> None:
        """End the recording because it cannot go on."""
        self._end.fail(reason)

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds; return True when the recording has ended."""
        return self._end.wait(timeout)

    def close(self) -> dict[str, Any]:
        """End the recording; remove a file that is not complete by now.

        Returns:
            A dictionary of status ("finished", "stopped" or "failed"), message, simulations, failures, time_steps,
            duplicates_dropped, path and bytes of the file (None and 0 where there is none), kept (number of finished
            simulations in a file that is not whole), and wall_seconds.
        """
        self._end.close()
        self._sockets.close()
        writer, counts = self._recorder.writer, self._coordinator.counts()
        if writer is not None and self._written is None:
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
            "path": self._written,
            "bytes": self._written.stat().st_size if self._written is not None else 0,
            "kept": self._kept,
            "wall_seconds": time.monotonic() - self._begun,
        }

    def _halt(self, reason: str) -> None:
        self._recorder.over = reason
        self._sockets.stop()

    def _outcome(self) -> tuple[str, str]:
        if self._written == self._path:
            failed = mostly_failed(self._coordinator.counts())
            return ("failed", failed) if failed else ("finished", "")
        if self._end.error:
            return "failed", self._end.error
        if self._end.stopped:
            return "stopped", self._end.stopped
        if gaps := self._gaps():
            return "failed", gaps
        return "failed", f"none of the {self._coordinator.counts().requested} simulations has sent a time step"

    def _gaps(self) -> str:
        """Say which simulation has a time step missing; "" where none has, but for those that failed."""
        writer = self._recorder.writer
        failed = self._coordinator.failures()
        gaps = {} if writer is None else {i: step for i, step in writer.gaps().items() if i not in failed}
        if not gaps:
            return ""
        simulation, step = next(iter(gaps.items()))
        return (
            f"simulation {simulation} has sent later time steps and no time step {step} ({len(gaps)} simulations are "
            "like this): a recording holds time steps numbered 0, 1, 2, ...; number them as they are sent, and give "
            "their times as the time"
        )

    def _conclude(self) -> None:
        """Complete the file, once no time step will arrive any more; on the data thread, which alone writes."""
        writer = self._recorder.writer
        self._recorder.complete = True
        requested = self._coordinator.counts().requested
        if writer is not None and writer.time_steps and not self._end.stopped and not self._gaps():
            failed = self._coordinator.failures()
            writer.finish(np.array([i not in failed for i in range(requested)]))
            self._written = self._path
        elif writer is not None:
            gaps = writer.gaps()
            finished = [int(i) for i in self._coordinator.state_dict()["steps"] if int(i) not in gaps]
            if finished:
                writer.path = partial_path(self._path)
                writer.finish(np.isin(np.arange(requested), finished))
                self._written, self._kept = writer.path, len(finished)
        self._end.finish()

    def _broken(self, error: BaseException) -> None:
        self._end.note_error(self._log.failure(error))
        self._recorder.over = self._end.error
        self._end.finish()


def partial_path(path: Path) -> Path:
    """Return a new file for a recording that ended early: "heat-partial.h5" for "heat.h5", then "heat-partial-2.h5".

    It has another name, so that whoever finds the recording's own file can rely on it to be whole.
    """
    for number in itertools.count(1):
        there = path.with_name(f"{path.stem}-partial{f'-{number}' if number > 1 else ''}{path.suffix}")
        if not there.exists():
            break
    return there
