"""Solvers that are ready to stream: the built-in `Heat2D`, and finding a solver of one's own by import path.

The worker (`penstock_solvers.worker`) and the runners of external solvers are imported from their modules.
"""

from penstock_solvers.solver import SolverError, make_solver

__all__ = ["SolverError", "make_solver"]
