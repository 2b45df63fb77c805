"""What a runner of solver processes is asked to do, and what it reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from penstock_client.errors import SimulationFailed

TAIL_LINES = 20  # lines of the log that a failure quotes
LINE_CHARACTERS = 400  # characters of each quoted line; the message is sent to the server


@dataclass(frozen=True)
class Task:
    """One attempt at one simulation.

    Attributes:
        simulation: simulation id.
        attempt: attempt number, starting at 1.
        parameters: parameter values, by name.
        environment: variables to add to this process's environment: PENSTOCK_CONNECT (an absolute path),
            PENSTOCK_SIMULATION, PENSTOCK_ATTEMPT and the thread limits.
        log: file to which the solver's output is appended; None: only the last lines are kept, in memory.
    """

    simulation: int
    attempt: int
    parameters: Mapping[str, float]
    environment: Mapping[str, str] = field(default_factory=dict)
    log: Path | None = None


@dataclass(frozen=True)
class RunSummary:
    """Summary of a finished simulation. Values that the solver's log does not contain are None or empty.

    Attributes:
        seconds: wall time of the solver.
        time_steps: number of time steps.
        max_courant: largest Courant number of the run.
        delta_t: size of the last time step, in the case's unit of time.
        initial_residuals: residual before the first linear solve of the last time step, by field.
        final_residuals: residual after the last linear solve of the last time step, by field.
    """

    seconds: float
    time_steps: int | None = None
    max_courant: float | None = None
    delta_t: float | None = None
    initial_residuals: Mapping[str, float] = field(default_factory=dict)
    final_residuals: Mapping[str, float] = field(default_factory=dict)


class SolverFailed(SimulationFailed):
    """A simulation failed. The text contains the reason and the last lines of the solver's output.

    Args:
        reason: the reason, in one line.
        tail: the last lines of the output; long lines are cut, and at most TAIL_LINES are kept.
        final: True where the simulation would fail again with the same parameters.

    Attributes:
        reason: the reason, in one line.
        tail: the quoted lines.
        final: as given.
    """

    def __init__(self, reason: str, tail: Sequence[str] = (), *, final: bool = False) -> None:
        shown = [line if len(line) <= LINE_CHARACTERS else line[:LINE_CHARACTERS] + " ..." for line in tail]
        shown = shown[-TAIL_LINES:]
        heading = f"\nThe last {len(shown)} lines of its log:\n" if shown else ""
        super().__init__(reason + heading + "\n".join("  " + line for line in shown), final=final)
        self.reason = reason
        self.tail = tuple(shown)


class Runner(Protocol):
    """Runs simulations of one study as processes."""

    def run(self, task: Task, abandoned: Callable[[], bool]) -> RunSummary:
        """Run one simulation to its end.

        Args:
            task: the simulation.
            abandoned: asked a few times per second; the solver is stopped once it returns True.

        Returns:
            A summary of the run.

        Raises:
            SolverFailed: the solver could not be started, ended with an error, diverged, or exceeded its wall time.
            Abandoned: `abandoned` returned True. No process of the solver is left.
        """
