"""What a run directory says now, read bit by bit while a study writes it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.live.curves import Curve, TrainingCurve, validation_values
from penstock.live.lines import GrowingLines
from penstock.live.simulations import Points, points_of
from penstock.run import REPORT, Jobs, SimulationStates, holder, open_run, phase, read_report
from penstock.study import STUDY, is_file
from penstock_client import PenstockError
from penstock_server.plots.mesh import cell_centres
from penstock_server.study import Study
from penstock_server.telemetry.snapshots import FILE, Snapshots, read_snapshots

READ_SECONDS = 1.0  # between two looks at the files, however many browsers show the page
PHASE_SECONDS = 5.0  # between two looks at whether the study runs
JOBS_SECONDS = 30.0  # between two questions to the scheduler
MESH = "mesh.h5"


class RunReader:
    """Reads a run directory, which may be empty at first. One reader serves all browsers.

    Args:
        directory: the run directory.
        jobs: reads the jobs of a study that was submitted to a scheduler.

    Attributes:
        study: None before there is one.
        points: where the simulations are; None before there is a study.
        training: curves of the "train" lines of metrics.jsonl.
        validation: curves of its "validation" lines.
        last_training: the last "train" line; None before the first.
        last_validation: the last "validation" line; None before the first.
        pictures: held-out time steps; None before the first validation.
        centres: cell centres of the mesh, (points, 3); None where they are not known.
        phase: what the study does, in words.
        problem: what cannot be read, in words; "" where all can.
        changes: how often "study", "states", "pictures" and "mesh" have changed.
    """

    def __init__(self, directory: Path, jobs: Callable[[Path], Jobs | None] = lambda _directory: None) -> None:
        self._directory, self._read_jobs = directory, jobs
        self._metrics = GrowingLines(directory / "metrics.jsonl")
        self._events = GrowingLines(directory / "events.jsonl")
        self._starts = {"metrics": 1, "events": 1}
        self._simulations = SimulationStates()
        self._jobs: Jobs | None = None
        self._outcome: dict[str, Any] | None = None
        self._runs = False
        self._due = {"files": 0.0, "phase": 0.0, "jobs": 0.0}
        self._seen: dict[str, tuple[int, int, int]] = {}
        self.study: Study | None = None
        self.points: Points | None = None
        self.training = TrainingCurve()
        self.validation = Curve(validation_values)
        self.last_training: dict[str, Any] | None = None
        self.last_validation: dict[str, Any] | None = None
        self.pictures: Snapshots | None = None
        self.centres: Any = None
        self.phase = ""
        self.problem = ""
        self.changes = {"study": 0, "states": 0, "pictures": 0, "mesh": 0}

    @property
    def running(self) -> bool:
        """Whether a process runs the study."""
        return self._runs

    def states(self) -> dict[int, str]:
        """Return the state of each simulation that has one: "waiting", "running", "finished" or "failed"."""
        return self._simulations.states if self._runs else self._simulations.without_running()

    def refresh(self) -> None:
        """Read what is new, unless that has just been done."""
        now = time.monotonic()
        if not self._is_due("files", now, READ_SECONDS):
            return
        self.problem = ""
        for read in (self._read_study, self._read_phase, self._read_metrics, self._read_events, self._read_pictures):
            try:
                read()
            except (PenstockError, OSError, ValueError, KeyError) as error:
                self.problem = self.problem or str(error)

    def _read_study(self) -> None:
        path = self._directory / STUDY
        if not self._is_new(path) or not is_file(path):
            return
        try:
            self.study = open_run(self._directory)
        except PenstockError:
            self._seen.pop(path.name)  # to be tried again
            raise
        self.points = points_of(self.study)
        self.changes["study"] += 1
        self.changes["states"] += 1

    def _read_phase(self) -> None:
        now = time.monotonic()
        if self.study is None or not self._is_due("phase", now, PHASE_SECONDS):
            return
        if self._is_due("jobs", now, JOBS_SECONDS):
            self._jobs = self._read_jobs(self._directory)
        if self._is_new(self._directory / REPORT):
            self._outcome = read_report(self._directory)
        pid = holder(self._directory)
        runs = pid is not None or (self._jobs is not None and self._jobs.running)
        self.phase = phase(pid, self._outcome, self._jobs)
        if runs != self._runs:
            self._runs = runs
            self.changes["states"] += 1

    def _read_metrics(self) -> None:
        lines = self._metrics.read()
        if self._began_again("metrics", self._metrics):
            self.training.clear()
            self.validation.clear()
        for line in lines:
            if line.get("kind") == "train":
                self.training.add(line)
                self.last_training = line
            elif line.get("kind") == "validation":
                self.validation.add(line)
                self.last_validation = line

    def _read_events(self) -> None:
        lines = self._events.read()
        if self._began_again("events", self._events):
            self._simulations = SimulationStates()
        changed = [self._simulations.note(event) for event in lines]
        self.changes["states"] += any(changed)

    def _read_pictures(self) -> None:
        path, mesh = self._directory / FILE, self._directory / MESH
        new_mesh = self._is_new(mesh)
        if new_mesh:
            self._read_again_on_failure(mesh, lambda: setattr(self, "centres", cell_centres(mesh)))
            self.changes["mesh"] += 1
        new = self._is_new(path) and is_file(path)
        if new:
            self._read_again_on_failure(path, lambda: setattr(self, "pictures", read_snapshots(path)))
            self.changes["states"] += 1  # the errors of held-out simulations
        if new or (new_mesh and self.pictures is not None):
            self.changes["pictures"] += 1

    def _read_again_on_failure(self, path: Path, read: Callable[[], None]) -> None:
        try:
            read()
        except (OSError, ValueError, KeyError):
            self._seen.pop(path.name, None)
            raise

    def _is_new(self, path: Path) -> bool:
        """Whether a file has been replaced since the last call."""
        try:
            found = path.stat()
        except FileNotFoundError:
            return self._seen.pop(path.name, None) is not None
        signature = (found.st_ino, found.st_mtime_ns, found.st_size)
        new = self._seen.get(path.name) != signature
        self._seen[path.name] = signature
        return new

    def _is_due(self, what: str, now: float, seconds: float) -> bool:
        if now < self._due[what]:
            return False
        self._due[what] = now + seconds
        return True

    def _began_again(self, what: str, lines: GrowingLines) -> bool:
        before, self._starts[what] = self._starts[what], lines.starts
        return before != lines.starts
