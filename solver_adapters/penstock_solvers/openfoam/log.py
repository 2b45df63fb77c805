"""Reading the log of an OpenFOAM solver while it runs: time steps, Courant number, residuals, errors and divergence.

PyFoam's log analyzers are not used: they keep every time line in a list that is never emptied, and a worker runs
thousands of simulations.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from penstock_solvers.processes import RunSummary

MAX_COURANT = 100.0  # implicit solvers run well above 1; a larger Courant number counts as divergence
FATAL_LINES = 4  # lines of an OpenFOAM error message that are quoted

_TIME = re.compile(r"^Time = ([-+.\deE]+)s?$")
_DELTA_T = re.compile(r"^deltaT = (\S+)")
_COURANT = re.compile(r"Courant Number mean: \S+ max: (\S+)|^Mean and max Courant Numbers = \S+ (\S+)")
_SOLVE = re.compile(r"^\S+:\s+Solving for (\S+), Initial residual = ([^,]+), Final residual = ([^,]+), No Iterations")
_FATAL = re.compile(r"FOAM FATAL (IO )?ERROR")
_LOADER = re.compile(r"^\S+\.so\S*: .+")  # the dynamic loader's reason
_NOT_LOADED = re.compile(r"(?:Cannot load|Unknown) function(?:Object)? type \S*penstockStream")
_TRAPPED = re.compile(r"sigFpe::sigHandler|sigSegv::sigHandler")


def _number(text: str) -> float:
    """Read a number as C++ prints it, including "nan", "-nan" and "inf"; NaN if the text is not a number."""
    try:
        return float(text.strip().strip("()").split()[0])
    except (ValueError, IndexError):
        return math.nan


@dataclass
class SolverLog:
    """Reads the log of one run; a `Follower` for `run_program`.

    Attributes:
        max_courant_allowed: a larger Courant number counts as divergence.
        time: time of the current time step, in the case's unit; None before the first one.
        delta_t: size of the current time step.
        diverged: True once the run has diverged or met a floating point exception.
        time_steps: number of time steps so far.
        max_courant: largest Courant number so far.
        initial_residuals: residual before the first linear solve of the current time step, by field.
        final_residuals: residual after the last linear solve of the current time step, by field.
    """

    max_courant_allowed: float = MAX_COURANT
    time: float | None = None
    delta_t: float | None = None
    diverged: bool = False
    time_steps: int = 0
    max_courant: float | None = None
    initial_residuals: dict[str, float] = field(default_factory=dict)
    final_residuals: dict[str, float] = field(default_factory=dict)
    _printed_delta_t: bool = False
    _solved: set[str] = field(default_factory=set)
    _fatal: list[str] | None = None
    _fatal_over: bool = False
    _trap: str | None = None
    _loading: str | None = None

    def follow(self, line: str) -> str | None:
        """Read one line; see `Follower.follow`.

        Args:
            line: the line.

        Returns:
            The reason if the run has diverged or streams nothing and must be stopped, else None.
        """
        if _NOT_LOADED.search(line):  # most OpenFOAMs only warn of this and compute to the end
            return (
                f"OpenFOAM could not load the function object penstockStream ({self._loading or line.strip()}), so that "
                "nothing would be streamed; run penstock openfoam build, and if the case has its own entry, correct its "
                "'libs'"
            )
        if self._fatal is not None:
            text = re.sub(r"^\[\d+\]", "", line).strip()  # mpirun's output: "[rank] text"
            self._fatal_over = self._fatal_over or text.startswith("From function") or len(self._fatal) == FATAL_LINES
            if text and not self._fatal_over:
                self._fatal.append(text)
        elif _FATAL.search(line):
            self._fatal = []
        elif _LOADER.match(line):
            self._loading = line.strip()
        elif _TRAPPED.search(line):
            self.diverged = self.diverged or "sigFpe" in line
            self._trap = self._trap or (
                f"floating point exception (division by zero, overflow or not a number) {self._where}; "
                "try a smaller deltaT"
                if "sigFpe" in line
                else f"segmentation fault {self._where}"
            )
        elif match := _SOLVE.match(line):
            return self._residuals(match[1], _number(match[2]), _number(match[3]))
        elif match := _COURANT.search(line):
            return self._courant(_number(match[1] or match[2]))
        elif match := _TIME.match(line):
            self._step(_number(match[1]))
        elif match := _DELTA_T.match(line):
            self.delta_t, self._printed_delta_t = _number(match[1]), True
        return None

    @property
    def verdict(self) -> str | None:
        """The error that the log reports, OpenFOAM's message or a trapped signal, or None."""
        if self._fatal is not None:
            return " ".join(self._fatal) or "FOAM FATAL ERROR"
        return self._trap

    def summary(self, seconds: float) -> RunSummary:
        """Summarise the run.

        Args:
            seconds: wall time of the run.

        Returns:
            The summary.
        """
        return RunSummary(
            seconds=seconds,
            time_steps=self.time_steps,
            max_courant=self.max_courant,
            delta_t=self.delta_t,
            initial_residuals=dict(self.initial_residuals),
            final_residuals=dict(self.final_residuals),
        )

    @property
    def _where(self) -> str:
        return "before the first time step" if self.time is None else f"at time {self.time:g}"

    def _step(self, time: float) -> None:
        if self.time is not None and not self._printed_delta_t:
            # Solvers with a fixed time step do not print deltaT, and times are printed with 6 digits.
            self.delta_t = float(f"{time - self.time:.6g}")
        self.time = time
        self.time_steps += 1
        self._solved.clear()

    def _courant(self, courant: float) -> str | None:
        if not courant <= self.max_courant_allowed:  # true for NaN as well
            self.diverged = True
            return (
                f"diverged: Courant number {courant:g} {self._where}, above "
                f"max_courant = {self.max_courant_allowed:g}; use a smaller deltaT, or raise max_courant "
                "in [solver.options]"
            )
        self.max_courant = courant if self.max_courant is None else max(self.max_courant, courant)
        return None

    def _residuals(self, name: str, initial: float, final: float) -> str | None:
        if not (math.isfinite(initial) and math.isfinite(final)):
            self.diverged = True
            return (
                f"diverged: the residual of {name} is {initial:g}, then {final:g}, {self._where}; use a smaller deltaT"
            )
        if name not in self._solved:
            self._solved.add(name)
            self.initial_residuals[name] = initial
        self.final_residuals[name] = final
        return None
