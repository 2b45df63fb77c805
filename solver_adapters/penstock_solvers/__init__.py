"""Solvers for Penstock: built-in Python solvers, solvers by import path, OpenFOAM cases, and any other program.

`make_solver` finds a Python solver. The worker (`penstock_solvers.worker`) and the runners of other programs
(`penstock_solvers.openfoam`, `penstock_solvers.processes`) are imported from their modules.
"""

from penstock_solvers.solver import SolverError, make_solver

__all__ = ["SolverError", "make_solver"]
