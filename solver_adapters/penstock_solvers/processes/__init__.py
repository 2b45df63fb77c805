"""Solvers as processes: run in a folder in memory, watched, and ended with all processes that they started."""

from penstock_solvers.processes.command import CommandRunner, check_command
from penstock_solvers.processes.forks import keep_from_children
from penstock_solvers.processes.mpi import mpi_environment, require_mpirun, with_mpi
from penstock_solvers.processes.program import run_program
from penstock_solvers.processes.scratch import Scratch, default_root, tmpfs_directory
from penstock_solvers.processes.task import Runner, RunSummary, SolverFailed, Task

__all__ = [
    "CommandRunner",
    "RunSummary",
    "Runner",
    "Scratch",
    "SolverFailed",
    "Task",
    "check_command",
    "default_root",
    "keep_from_children",
    "mpi_environment",
    "require_mpirun",
    "run_program",
    "tmpfs_directory",
    "with_mpi",
]
