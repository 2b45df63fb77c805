"""How a study stands, from its run directory alone: whether anybody runs it, and what its logs say."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from penstock.run.directory import REPORT, holder, open_run
from penstock.run.display import duration, number
from penstock_server.telemetry import read_lines

# events.jsonl: what an event makes of its simulation
_STATES = {"assigned": "running", "finished": "finished", "returned": "waiting", "failed": "failed"}


class Jobs(Protocol):
    """The jobs of a study that was submitted to a cluster's scheduler."""

    @property
    def running(self) -> bool:
        """True while the server's job runs."""

    def server_state(self) -> str:
        """ "running" or "waiting for its job 12 to start"; "" when no server job is left."""

    def line(self) -> str:
        """All jobs in one line."""


@dataclass(frozen=True)
class RunState:
    """pid: of the process that runs the study, None when it is not running. outcome: report.json, None before the first.

    simulations: how many are in each state. training, validation: the last line of metrics.jsonl of each kind.
    jobs: those of a submitted study, None for one that was not submitted.
    """

    name: str
    pid: int | None
    outcome: dict[str, Any] | None
    requested: int
    simulations: Counter[str] = field(default_factory=Counter)
    training: dict[str, Any] | None = None
    validation: dict[str, Any] | None = None
    jobs: Jobs | None = None

    def lines(self) -> list[str]:
        """For people."""
        if self.jobs is not None and (server := self.jobs.server_state()):
            state = server
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


def read_state(directory: Path, jobs: Jobs | None = None) -> RunState:
    """Read how a study stands from its run directory; the study may be running.

    Args:
        directory: the run directory.
        jobs: the jobs of a submitted study.

    Raises:
        StudyError: `directory` is no run directory.
    """
    study = open_run(directory)
    pid = holder(directory)
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
