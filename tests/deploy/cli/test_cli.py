"""The command line itself: help, version, bad usage, and a machine with the client alone."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PENSTOCK = [sys.executable, "-m", "penstock.main"]


def penstock(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PENSTOCK, *arguments], capture_output=True, text=True, check=False, env={**os.environ, **(environment or {})}
    )


def test_help_imports_nothing_heavy_and_names_every_command() -> None:
    code = "import sys\nsys.argv = ['penstock', '--help']\nfrom penstock.main import main\ntry: main()\nexcept SystemExit: pass\n"
    code += "print([m for m in ('torch', 'ray', 'pydantic', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for command in ("run", "resume", "status", "report", "check", "worker", "predict", "export", "plot", "openfoam"):
        assert re.search(rf"\b{command}\b", done.stdout), command


def test_version() -> None:
    assert penstock("--version").stdout == f"penstock {importlib.metadata.version('penstock')}\n"


@pytest.mark.parametrize(
    "arguments",
    [("rn",), ("run",), ("worker",), ("run", "study.toml", "--sat", "a=1"), ("predict", ".", "--set", "a=high")],
)
def test_bad_usage_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    done = penstock(*arguments)
    assert done.returncode == 2
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_without_a_server_says_so(tmp_path: Path) -> None:
    done = penstock("worker", "--connect", str(tmp_path / "connect.json"))
    assert done.returncode == 1
    assert "connect.json" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def client_only(tmp_path: Path) -> dict[str, str]:
    """An environment where the server extra cannot be imported."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('typer', 'rich', 'pydantic', 'torch', 'ray'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
    )
    return {"PYTHONPATH": str(tmp_path)}


def test_a_compute_node_has_the_worker_alone(client_only: dict[str, str], tmp_path: Path) -> None:
    done = penstock("worker", "--connect", str(tmp_path / "connect.json"), environment=client_only)
    assert (done.returncode, "connect.json" in done.stderr) == (1, True), done.stderr
    done = penstock("run", "study.toml", environment=client_only)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "penstock: only `penstock worker` works without the server extra; for the rest: pip install 'penstock[server]'\n"
    )
