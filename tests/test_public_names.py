"""What each room declares as public; the packages that users import are listed here, so that a change in them is deliberate."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "penstock_client": "clients",
    "penstock_solvers": "solver_adapters",
    "penstock_server": "server",
    "penstock": "deploy",
}
FOR_USERS = {
    "penstock_client": [
        *("Abandoned", "Client", "ConnectError", "ConnectInfo", "ConnectionBroken", "Field", "FieldError"),
        *("PenstockError", "Reason", "Refused", "ServerLost", "Simulation", "SimulationFailed"),
        *("Solver", "WireError"),
        *("read_connect_file", "stream_solver"),
    ],
    "penstock_solvers": ["SolverError", "make_solver"],
    "penstock_server": [],
    "penstock_server.surrogate": ["PredictError", "Prediction", "Surrogate"],
    "penstock": [],
}
ROOMS = [
    package if not module else f"{package}.{module}"
    for package, folder in FOLDERS.items()
    for module in ["", *(m.name for m in pkgutil.iter_modules([str(ROOT / folder / package)]) if m.ispkg)]
]


@pytest.mark.parametrize("package", FOR_USERS)
def test_what_users_import_is_as_listed(package: str) -> None:
    assert sorted(importlib.import_module(package).__all__) == sorted(FOR_USERS[package])


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_declares_its_public_names_and_has_them(room: str) -> None:
    module = importlib.import_module(room)
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


def test_a_public_name_is_imported_from_its_room() -> None:
    """`from penstock_server.buffer import Buffer`, never from the file of another room that defines it."""
    public = {room: set(importlib.import_module(room).__all__) for room in ROOMS}
    wrong = []
    for package, folder in FOLDERS.items():
        for path in sorted((ROOT / folder / package).rglob("*.py")):
            own = ".".join((package, *path.relative_to(ROOT / folder / package).parts[:-1][:1]))
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.ImportFrom) or node.module is None or node.module.count(".") != 2:
                    continue
                room = node.module.rpartition(".")[0]
                names = public.get(room, set()) & {alias.name for alias in node.names}
                if room != own and names:
                    wrong.append(
                        f"{path.relative_to(ROOT)}:{node.lineno}: {', '.join(sorted(names))} from {node.module}"
                    )
    assert wrong == []
