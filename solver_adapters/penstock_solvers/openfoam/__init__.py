"""OpenFOAM cases as solvers: copying, modifying, checking and running them; building the function object."""

from penstock_solvers.openfoam.check import case_warnings, check_case
from penstock_solvers.openfoam.runner import OpenFOAMRunner
from penstock_solvers.openfoam.time_folder import time_of_step, write_time_folder

__all__ = ["OpenFOAMRunner", "case_warnings", "check_case", "time_of_step", "write_time_folder"]
