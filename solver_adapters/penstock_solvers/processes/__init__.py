"""Solvers as processes: started in a folder in memory, watched, and ended with everything they started."""

from penstock_solvers.processes.command import CommandRunner, check_command
from penstock_solvers.processes.program import (
    Runner,
    RunSummary,
    SolverFailed,
    Task,
    mpi_environment,
    require_mpirun,
    run_program,
    tmpfs_directory,
    with_mpi,
)
from penstock_solvers.processes.scratch import Scratch, default_root

__all__ = [
    "CommandRunner",
    "RunSummary",
    "Runner",
    "Scratch",
    "SolverFailed",
    "Task",
    "check_command",
    "default_root",
    "mpi_environment",
    "require_mpirun",
    "run_program",
    "tmpfs_directory",
    "with_mpi",
]
