"""The client in a solver's own Python, with the numpy, pyzmq and mpi4py of a Linux distribution (Debian 12)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from native import ROOT

from lacking import lacking
from live_server import live_server, worker
from waiting import PATIENCE

PYTHON = "/usr/bin/python3"
PROGRAM = """
import sys
import numpy as np
from penstock_client import Client, Field, FieldError
if sys.argv[1:] == ["mpi"]:
    from mpi4py import MPI
    client = Client(comm=MPI.COMM_WORLD)
else:
    client = Client()
with client:
    simulation = client.simulation()
    simulation.announce(indices=np.arange(5, -1, -1), u=Field(6, components=2, dtype=np.float64), v=Field([6]))
    for step in range(4):
        simulation.send(step, 0.1 * step, u=np.full((6, 2), step, np.float32), v=np.arange(6.0))
    try:
        simulation.send(0.5, u=np.zeros((6, 2)), v=np.zeros(6))
    except FieldError:
        print("refused")
    simulation.finish()
print(np.__version__)
"""


def missing(package: str) -> bool:
    command = [PYTHON, "-c", f"import {package}"]
    return not Path(PYTHON).exists() or subprocess.run(command, capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize("mpi", [False, True], ids=["", "mpi"])
def test_it_streams_with_the_packages_of_the_distribution(tmp_path: Path, mpi: bool) -> None:
    if missing("numpy, zmq" + (", mpi4py.MPI" if mpi else "")):
        lacking("needs Debian's python3-numpy, python3-zmq and python3-mpi4py: `make system`")
    with live_server(tmp_path / "run", {"u": {"components": 2}, "v": {}}) as server, worker(server) as client:
        simulation = next(client.simulations())
        variables = {**server.environment(simulation), "PYTHONPATH": str(ROOT / "clients"), "PYTHONHOME": ""}
        done = subprocess.run(
            [PYTHON, "-W", "error", "-c", PROGRAM, *(["mpi"] if mpi else [])],
            env={k: v for k, v in variables.items() if v},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.splitlines()[0] == "refused"
        simulation.exited()
        assert server.report()["samples"]["unique"] == 4
