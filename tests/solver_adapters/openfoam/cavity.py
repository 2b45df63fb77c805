"""Run the cavity tutorials of OpenFOAM, and read the fields that solver and server have written."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from live_server import LiveServer
from penstock_client.simulation import Simulation
from penstock_solvers.openfoam.environment import openfoam_environment
from waiting import PATIENCE

CELLS = 400  # of both cavity tutorials
CAVITY = {"U": {"components": 3}, "p": {}}
STEPS = 20
MPI = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1"}


def foam(case: Path, *command: str) -> None:
    """Run a command of OpenFOAM in a case; it must succeed."""
    done = subprocess.run(
        command, cwd=case, env=openfoam_environment() | MPI, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]


def cavity_of(tutorial: Callable[..., Path], fields: str = "(U p)", *entries: str, **options: Any) -> Path:
    """Make the icoFoam cavity, with STEPS time steps of 0.005 s, all written in full precision."""
    case = tutorial("incompressible/icoFoam/cavity/cavity", fields, *entries, end_time=str(0.005 * STEPS), **options)
    control = case / "system" / "controlDict"
    text = re.sub(r"^writeInterval .*$", "writeInterval 1;", control.read_text(), flags=re.M)
    control.write_text(re.sub(r"^writePrecision .*$", "writePrecision 12;", text, flags=re.M))
    return case


def decomposed(case: Path, ranks: int = 2) -> list[str]:
    """Cut a case into parts that are not of consecutive cells; returns the command that solves it in parallel."""
    header = "FoamFile { version 2.0; format ascii; class dictionary; object decomposeParDict; }\n"
    (case / "system" / "decomposeParDict").write_text(
        f"{header}numberOfSubdomains {ranks};\nmethod simple;\nsimpleCoeffs {{ n ({ranks} 1 1); delta 0.001; }}\n"
    )
    foam(case, "decomposePar")
    return ["env", *(f"{k}={v}" for k, v in MPI.items()), "mpirun", "-np", str(ranks), "icoFoam", "-parallel"]


def solve(server: LiveServer, simulation: Simulation, case: Path, *command: str) -> tuple[int, str]:
    """Run a solver that streams a simulation to the server; returns its exit code and output."""
    process = server.start(command, simulation, cwd=case)
    output = process.communicate(timeout=PATIENCE)[0]
    return process.returncode, output


def internal_field(path: Path, components: int) -> Any:
    """Read the cell values of a field file in ASCII; returns shape (cells, components)."""
    text = path.read_text()
    values = re.search(r"internalField\s+nonuniform List<\w+>\s*\d+\s*\((.*?)\n\)\s*;", text, re.S)
    assert values is not None, f"{path} has no list of cell values"
    return np.fromstring(re.sub(r"[()\n]", " ", values[1]), sep=" ").reshape(-1, components)


def pictures(directory: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read the held-out samples that the server keeps for pictures; yields their time steps and true fields."""
    with h5py.File(directory / "validation_snapshots.h5") as file:
        for group in file.values():
            if isinstance(group, h5py.Group):
                yield (
                    int(group.attrs["step"]),
                    {name: np.array(group[name]["true"]) for name in group if isinstance(group[name], h5py.Group)},
                )


def icofoam(case: Path, **environment: str) -> tuple[int, str, float]:
    """Run icoFoam without a server; see `openfoam`."""
    return openfoam(case, "icoFoam", **environment)


def openfoam(case: Path, solver: str, **environment: str) -> tuple[int, str, float]:
    """Run a solver without a server; returns its exit code, its output on one line and how many seconds it took."""
    begun = time.monotonic()
    variables = {"PENSTOCK_SIMULATION": "0", "PENSTOCK_ATTEMPT": "1", "PENSTOCK_CONNECT_TIMEOUT": "1"} | environment
    own = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    done = subprocess.run(
        [solver],
        cwd=case,
        env=openfoam_environment(own) | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, re.sub(r"\s+", " ", done.stdout), time.monotonic() - begun
