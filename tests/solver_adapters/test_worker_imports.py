"""A worker imports no heavy package while it runs a simulation."""

from __future__ import annotations

import subprocess
import sys
from os import environ
from pathlib import Path

from live_server import live_server
from waiting import PATIENCE

SOLVERS = Path(__file__).parents[1] / "deploy"  # slow_solver.py
HEAVY = ("torch", "ray", "pydantic", "matplotlib", "h5py", "tensorboard", "prometheus_client", "typer", "scipy")
AT_THE_END = """
import atexit, os, pathlib, sys
atexit.register(lambda: pathlib.Path(os.environ["IMPORTED"]).write_text(" ".join(sys.modules)))
"""


def test_a_worker_imports_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(AT_THE_END)
    solver = {"adapter": "slow_solver:Slow", "options": {"steps": 5, "pause": 0.0}}
    with live_server(tmp_path / "run", {"u": {}}, simulations=2, solver=solver, files=SOLVERS) as live:
        done = subprocess.run(
            [sys.executable, "-m", "penstock_solvers.worker", "--connect", live.connect],
            env=environ | {"PYTHONPATH": str(tmp_path), "IMPORTED": str(tmp_path / "imported")},
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0
        assert live.report()["simulations"]["finished"] == 2
    imported = (tmp_path / "imported").read_text().split()
    assert "penstock_client" in imported  # it is the list of that process
    assert [name for name in HEAVY if name in imported] == []
