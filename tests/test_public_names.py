"""What each package declares as public; a change here is a change for users."""

from __future__ import annotations

import importlib

import pytest

PUBLIC = {
    "penstock_client": [
        *(
            "Abandoned",
            "Client",
            "ConnectError",
            "ConnectInfo",
            "ConnectionBroken",
            "Field",
            "FieldError",
            "PenstockError",
            "Reason",
            "Refused",
        ),
        *("ServerLost", "Simulation", "Solver", "WireError", "read_connect_file", "stream_solver"),
    ],
    "penstock_solvers": ["SolverError", "make_solver"],
    "penstock_server": [],
    "penstock_server.buffer": [
        *("Buffer", "BufferState", "BufferStats", "PolicyName", "Slot"),
        *("available_memory", "capacity_in_samples", "check_sizes"),
    ],
    "penstock": [],
}


@pytest.mark.parametrize("package", PUBLIC)
def test_public_names_are_declared_and_there(package: str) -> None:
    module = importlib.import_module(package)
    assert sorted(module.__all__) == sorted(PUBLIC[package])
    assert all(hasattr(module, name) for name in module.__all__)
