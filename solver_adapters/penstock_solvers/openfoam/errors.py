"""The errors of OpenFOAM cases. They are final: the same case and parameters would fail again."""

from __future__ import annotations

from collections.abc import Sequence

from penstock_solvers.processes import SolverFailed


class CaseError(SolverFailed):
    """An OpenFOAM case, or a setting of the study about it, cannot be used.

    Args:
        reason: the reason, in one line.
        tail: the last lines of a program's output.

    Attributes:
        final: True.
    """

    def __init__(self, reason: str, tail: Sequence[str] = ()) -> None:
        super().__init__(reason, tail)
        self.final = True


class Diverged(CaseError):
    """A solver has diverged with the simulation's parameters."""
