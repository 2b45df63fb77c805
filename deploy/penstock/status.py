"""How a study stands, from its run directory alone: whether anybody runs it, and what its logs say."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.display import duration, number
from penstock.run_directory import REPORT, holder, open_run
from penstock.slurm.state import StudyJobs, read_jobs
from penstock_server.jsonl import read_lines

# events.jsonl: what an event makes of its simulation
_STATES = {"assigned": "running", "finished": "finished", "returned": "waiting", "failed": "failed"}


@dataclass(frozen=True)
class RunState:
    """pid: of the process that runs the study, None when it is not running. outcome: report.json, None before the first.

    simulations: how many are in each state. training, validation: the last line of metrics.jsonl of each kind.
    jobs: Slurm's of the study, None where it was not submitted.
    """

    name: str
    pid: int | None
    outcome: dict[str, Any] | None
    requested: int
    simulations: Counter[str] = field(default_factory=Counter)
    training: dict[str, Any] | None = None
    validation: dict[str, Any] | None = None
    jobs: StudyJobs | None = None

    def lines(self) -> list[str]:
        """For people."""
        if self.jobs is not None and self.jobs.server is not None:
            state = "running" if self.jobs.running else f"waiting for its job {self.jobs.server.id} to start"
        elif self.pid is not None:
            state = f"running (pid {self.pid})"
        elif self.outcome is not None:
            state = f"{self.outcome['status']} after {duration(self.outcome['wall_seconds'])}"
        elif self.jobs is not None:
            state = "not running, and it left no report: it was killed; `penstock submit` with its run directory continues it"
        else:
            state = "not running, and it left no report: it was killed; `penstock resume` continues it"
        s = self.simulations
        out = [
            f"{self.name}: {state}",
            f"simulations: {s['finished']} of {self.requested} finished, {s['running']} running, {s['failed']} failed",
        ]
        if self.training is not None:
            t = self.training
            out.append(
                f"training: {t['batches']} batches, loss {number(t['loss'])}, {t['samples_per_second']:.0f} samples/s; "
                f"{t['received']} samples received, {t['buffer_population']} in the buffer"
            )
        if self.validation is not None:
            out.append(
                f"validation: relative L2 {number(self.validation['relative_l2'])} at batch {self.validation['batches']}"
            )
        if self.jobs is not None:
            out.append(self.jobs.line())
        return out


def read_state(directory: Path) -> RunState:
    """Read a run directory; the study may be running. Raises StudyError where it is none."""
    study = open_run(directory)
    pid, jobs = holder(directory), read_jobs(directory)
    states: dict[int, str] = {}
    for event in read_lines(directory / "events.jsonl"):
        if event["event"] == "started":  # an incarnation knows nothing of what ran in the one before
            states = _handed_back(states)
        if "simulation" in event and event["event"] in _STATES:
            again = event["event"] == "failed" and event.get("again")
            states[event["simulation"]] = "waiting" if again else _STATES[event["event"]]
    if pid is None and not (jobs is not None and jobs.running):
        states = _handed_back(states)
    last = {line["kind"]: line for line in read_lines(directory / "metrics.jsonl")}
    report = directory / REPORT
    return RunState(
        name=study.study.name,
        pid=pid,
        outcome=json.loads(report.read_text()) if report.is_file() else None,
        requested=study.solver.simulations + study.solver.validation_simulations,
        simulations=Counter(states.values()),
        training=last.get("train"),
        validation=last.get("validation"),
        jobs=jobs,
    )


def _handed_back(states: dict[int, str]) -> dict[int, str]:
    return {s: "waiting" if state == "running" else state for s, state in states.items()}
