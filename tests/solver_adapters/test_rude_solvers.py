"""Solver classes that end the interpreter, raise KeyboardInterrupt or fork: a failure has its text, a child its end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from live_server import live_server
from waiting import PATIENCE

SOLVERS = Path(__file__).parents[1] / "deploy"  # rude_solvers.py


@pytest.mark.parametrize(
    ("deed", "failure"),
    [
        ("leave", "SystemExit: the licence has expired"),
        ("interrupt", "KeyboardInterrupt: Ctrl-C in a library"),
        ("fork", None),
    ],
)
def test_a_class_neither_ends_its_worker_nor_is_run_for_ever(deed: str, failure: str | None, tmp_path: Path) -> None:
    solver = {"adapter": "rude_solvers:Rude", "options": {"deed": deed}}
    with live_server(tmp_path, {"u": {}}, simulations=2, retries=1, solver=solver, files=SOLVERS) as live:
        done = subprocess.run(
            [sys.executable, "-m", "penstock_solvers.worker", "--connect", live.connect],
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        report = live.report()
    simulations = report["simulations"]
    assert (simulations["finished"], simulations["failed"]) == ((2, 0) if failure is None else (0, 2)), done.stderr
    assert all(failure in message for message in report["failures"].values()) if failure else not report["failures"]
