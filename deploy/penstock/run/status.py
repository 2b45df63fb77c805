"""The state of a study, from its run directory alone: whether a process runs it, and what its event log says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from penstock.run.directory import holder, open_run
from penstock.run.numbers import duration, number
from penstock.run.report import read_report
from penstock.run.simulation_states import SimulationStates
from penstock_server.telemetry import read_lines


class Jobs(Protocol):
    """The jobs of a study that was submitted to the scheduler of a cluster."""

    @property
    def running(self) -> bool:
        """Whether the server's job runs."""

    def server_state(self) -> str:
        """Describe the server's job: "running", "waiting for its job 12 to start", or "" when none is left."""

    def line(self) -> str:
        """Describe all jobs in one line."""


@dataclass(frozen=True)
class RunState:
    """The state of a study at one moment.

    Attributes:
        name: the study's name.
        pid: id of the process that runs the study; None when it is not running.
        outcome: the content of report.json; None before the first report.
        requested: simulations that the study asks for, held-out ones included.
        simulations: how many are "running", "finished", "waiting" or "failed".
        training: the last line of metrics.jsonl about training; None before the first.
        validation: the last line of metrics.jsonl about validation; None before the first.
        jobs: those of a submitted study; None for one that was not submitted.
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
        """Describe the state for people."""
        s = self.simulations
        out = [
            f"{self.name}: {self._phase()}",
            f"simulations: {s['finished']} of {self.requested} finished, {s['running']} running, {s['failed']} failed",
        ]
        if self.training is not None:
            t = self.training
            out.append(
                f"training: {t['batches']} batches, loss {number(t['loss'])}, {t['samples_per_second']:.0f} samples/s; "
                f"{t['received']} samples received, {t['buffer_population']} in the buffer"
            )
        if self.validation is not None:
            v = self.validation
            out.append(f"validation: relative L2 {number(v['relative_l2'])} at batch {v['batches']}")
        if self.jobs is not None:
            out.append(self.jobs.line())
        return out

    def figures(self) -> dict[str, Any]:
        """Return the state as values for JSON.

        `phase` is for people; `running` and `outcome` are for programs. `training` and `validation` are lines of
        metrics.jsonl.
        """
        return {
            "study": self.name,
            "phase": self._phase(),
            "running": self.running,
            "pid": self.pid,
            "outcome": None if self.outcome is None else self.outcome["status"],
            "simulations": {
                "requested": self.requested,
                **{state: self.simulations[state] for state in ("finished", "running", "failed")},
            },
            "training": self.training,
            "validation": self.validation,
            "jobs": None if self.jobs is None else self.jobs.line(),
        }

    @property
    def running(self) -> bool:
        """Whether the study runs, or waits in the queue of a cluster for it."""
        return self.pid is not None or (self.jobs is not None and bool(self.jobs.server_state()))

    def _phase(self) -> str:
        return phase(self.pid, self.outcome, self.jobs)


def phase(pid: int | None, outcome: Mapping[str, Any] | None, jobs: Jobs | None) -> str:
    """Describe for people what a study does now.

    Args:
        pid: of the process that runs it; None when it is not running.
        outcome: the content of report.json; None before the first report.
        jobs: those of a submitted study; None for one that was not submitted.
    """
    if jobs is not None and (server := jobs.server_state()):
        return server
    if pid is not None:
        return f"running (pid {pid})"
    if outcome is not None:
        return f"{outcome['status']} after {duration(outcome['wall_seconds'])}"
    how = "`penstock resume`" if jobs is None else "`penstock submit` with its run directory"
    return f"not running, and it left no report: it was killed; {how} continues it"


def read_state(directory: Path, jobs: Jobs | None = None) -> RunState:
    """Read the state of a study from its run directory; the study may be running.

    Args:
        directory: the run directory.
        jobs: the jobs of a submitted study; None for one that was not submitted.

    Raises:
        StudyError: `directory` is no run directory.
        DamagedReport: it has a report.json that cannot be read.
    """
    study = open_run(directory)
    pid = holder(directory)
    simulations = SimulationStates()
    for event in read_lines(directory / "events.jsonl"):
        simulations.note(event)
    runs = pid is not None or (jobs is not None and jobs.running)
    states = simulations.states if runs else simulations.without_running()
    last = {line["kind"]: line for line in read_lines(directory / "metrics.jsonl")}
    return RunState(
        name=study.study.name,
        pid=pid,
        outcome=read_report(directory),
        requested=study.solver.simulations + study.solver.validation_simulations,
        simulations=Counter(states.values()),
        training=last.get("train"),
        validation=last.get("validation"),
        jobs=jobs,
    )
