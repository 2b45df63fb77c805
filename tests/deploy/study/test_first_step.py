"""`penstock check` runs a Python solver until its first time step, and says what it did."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.study import load_study
from penstock.study.first_step import run_first_step
from waiting import wait_for

HEAT = Path(__file__).parents[3] / "examples" / "heat" / "study.toml"
SOLVER = """
import os, subprocess, sys, time
import numpy as np
from penstock_client import Field

class Own:
    fields = {"u": Field(shape=(4, 2), components=3, dtype="float32"), "unused": Field(shape=(2,))}

    def run(self, parameters):
        __DEED__
        yield 0.0, {"u": np.zeros((4, 2, 3), np.float32), "unused": np.zeros(2)}
"""
STUDY = """
[study]
name = "own"

[parameters]
a = [1.0, 2.0]

[solver]
adapter = "own_solver:Own"
simulations = 4
validation_simulations = 1

[fields]
u = {}
"""

Penstock = Callable[..., Any]


def write_study(folder: Path, deed: str) -> Path:
    (folder / "own_solver.py").write_text(SOLVER.replace("__DEED__", deed))
    study = folder / "study.toml"
    study.write_text(STUDY)
    return study


def test_check_says_what_it_has_run(tmp_path: Path, penstock: Penstock) -> None:
    study = write_study(tmp_path, "print('this goes nowhere')")
    called = penstock("check", study)
    first, second = called.out.splitlines()
    assert (called.code, called.err) == (0, "")
    assert first.startswith(f"{study}: nothing wrong found: 4 simulations")
    assert second.startswith(f"{study}: the solver was run at the first point until its first time step (")
    assert second.endswith("which has the fields as declared: u (4, 2) x 3 float32")
    assert penstock("check", study, "--first-step", "0").out.splitlines()[1] == f"{study}: the solver was not run"


@pytest.mark.parametrize(
    ("deed", "expect"),
    [
        ('yield 0.0, {"u": np.zeros((4, 2, 3))}', "field 'u' has dtype float64, announced was float32"),
        (
            'yield 0.0, {"u": np.zeros((2, 4, 3), np.float32)}',
            "field 'u' has shape (2, 4, 3), announced was (4, 2) x 3",
        ),
        ('yield 0.0, {"v": 0}', "has the fields [], announced were ['u']"),
        ("yield 0.0, parameters['b'], 1", "KeyError: 'b'"),
        ("return", "`run` ended without a time step"),
        ("sys.exit('no licence')", "SystemExit: no licence"),
        ("print('out of memory', flush=True); os._exit(3)", "the solver ended with code 3: out of memory"),
    ],
)
def test_what_is_wrong_with_the_first_time_step(deed: str, expect: str, tmp_path: Path, penstock: Penstock) -> None:
    study = write_study(tmp_path, deed)
    called = penstock("check", study)
    assert called.code == 2
    assert called.err.startswith(f"{study}: [solver] ")
    assert called.err.count("\n") == 1
    assert expect in called.err


def test_a_solver_that_takes_too_long_is_ended_with_what_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = tmp_path / "pids"
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    deed = (
        f"child = subprocess.Popen(['sleep', '600']); open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}');"
        "time.sleep(600)"
    )
    study = load_study(write_study(tmp_path, deed))
    for seconds in (4, 16, 64):  # a busy machine starts Python slowly
        tried = run_first_step(study, seconds)
        assert tried.problem == ""
        assert tried.said == (
            f"the solver has sent no time step within {seconds} s and was ended, so its fields were not compared; "
            f"--first-step {10 * seconds} waits longer"
        )
        if pids.exists():
            break
    started = pids.read_text().split()
    assert len(started) == 2
    wait_for(lambda: not any(running(pid) for pid in started))


def running(pid: str) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("settings", "expect"),
    [
        (['solver.adapter="openfoam"', 'solver.case="."'], "OpenFOAM was not run"),
        (['training.source="heat.h5"'], "no solver was run: the study trains on a recording"),
    ],
)
def test_solvers_that_are_not_run(settings: list[str], expect: str) -> None:
    tried = run_first_step(load_study(HEAT, settings), seconds=10.0)
    assert tried.said.startswith(expect)
    assert not tried.problem
