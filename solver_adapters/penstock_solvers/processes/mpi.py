"""Starting a solver under mpirun."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from penstock_solvers.processes.task import SolverFailed


def with_mpi(command: Sequence[str], ranks: int) -> list[str]:
    """Return the command, under mpirun if there is more than one rank.

    Args:
        command: program and arguments.
        ranks: number of MPI ranks.
    """
    return ["mpirun", "-np", str(ranks), *command] if ranks > 1 else list(command)


def require_mpirun(ranks: int, search: str | None = None) -> None:
    """Check that mpirun is installed, if there is more than one rank.

    Args:
        ranks: number of MPI ranks.
        search: PATH to search; default: this process's PATH.

    Raises:
        SolverFailed: mpirun is needed and not installed.
    """
    if ranks > 1 and shutil.which("mpirun", path=search) is None:
        raise SolverFailed(
            f"[solver] ranks = {ranks}: mpirun is not installed; install an MPI (on Debian: apt-get install "
            "openmpi-bin) or set ranks = 1"
        )


def mpi_environment(scratch: Path) -> dict[str, str]:
    """Return the variables with which mpirun starts one of several simulations on this machine.

    Only Open MPI (4 and 5) reads them. Binding is off because each mpirun would otherwise bind its ranks to the same
    first cores.

    Args:
        scratch: folder for mpirun's session files.
    """
    settings = {
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "OMPI_MCA_hwloc_base_binding_policy": "none",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        "PRTE_MCA_hwloc_default_binding_policy": "none",
        "TMPDIR": str(scratch),
    }
    if os.geteuid() == 0:
        settings |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return settings
