"""The command line, called in this process: quick, since torch is imported once; and a cluster for a file of tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from slurm_cluster import nodes_are_idle, queue, slurm, slurm_cluster

from penstock.main import main
from waiting import wait_for


@dataclass(frozen=True)
class Called:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def penstock(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Called]:
    """Runs `penstock ARGUMENT ...`; what it changes of this process is as before at the end of the test."""

    def call(*arguments: str | Path) -> Called:
        monkeypatch.setattr(sys, "argv", ["penstock", *map(str, arguments)])
        monkeypatch.setattr(sys, "path", list(sys.path))
        for name in ("PYTHONPATH", "OMP_WAIT_POLICY", "KMP_BLOCKTIME", "GOMP_SPINCOUNT"):
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)
        for module in ("wrong_model", "wrong_import", "own_solver"):
            monkeypatch.delitem(sys.modules, module, raising=False)
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capfd.readouterr()
        return Called(int(exit_.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture(scope="module")
def slurm_commands() -> Iterator[None]:
    """A real Slurm, to which Slurm's commands speak."""
    with slurm_cluster():
        yield


@pytest.fixture
def nothing_left(slurm_commands: None) -> Iterator[None]:
    """Whatever a test leaves behind, the next one begins with an empty queue and idle nodes."""
    yield
    slurm("scontrol", "update", "NodeName=n2", "State=RESUME")
    if queue():
        slurm("scancel", "--user=root")
        wait_for(lambda: not queue())
    wait_for(nodes_are_idle)
