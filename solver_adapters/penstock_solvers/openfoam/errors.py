"""The error of everything that is wrong with an OpenFOAM case."""

from __future__ import annotations

from penstock_solvers.processes import SolverFailed


class CaseError(SolverFailed):
    """An OpenFOAM case, or a setting of the study about it, cannot be used."""
