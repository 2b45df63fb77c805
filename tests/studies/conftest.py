"""What whole studies share."""

from __future__ import annotations

import pytest
from native import Installed

from mpi import require


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """libpenstock and what is on top of it; its tests run in one process (arrangement.py), so that it is compiled once."""
    require("mpirun", "mpicc", "mpifort", "gfortran")
    return Installed(tmp_path_factory.mktemp("libpenstock"))
