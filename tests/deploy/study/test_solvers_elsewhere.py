"""Where all workers come from elsewhere (concurrency = 0), the solver's programs need not be installed on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_wrong_studies import write_study

Penstock = Callable[..., Any]
COMMAND = {"solver": {"command": ["no-such-solver", "--left={left}"], "concurrency": 0}}
WITHOUT_ADAPTER = ("solver.adapter", "solver.options")


@pytest.fixture
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


@pytest.mark.usefixtures("nothing_installed")
def test_openfoam_is_asked_for_only_where_it_runs(tmp_path: Path, penstock: Penstock) -> None:
    study = write_study(tmp_path, "cavity")
    assert penstock("check", study, "--set", "solver.concurrency=0").code == 0
    here = penstock("check", study, "--set", "solver.concurrency=1")
    assert here.code == 2
    assert "'icoFoam' is not installed" in here.err or "OpenFOAM is not installed" in here.err


@pytest.mark.usefixtures("nothing_installed")
def test_the_case_is_checked_all_the_same(tmp_path: Path, penstock: Penstock) -> None:
    study = write_study(tmp_path, "cavity")
    wrong = penstock("check", study, "--set", "solver.concurrency=0", "--set", "solver.entries.viscosity.entry='nuu'")
    assert wrong.code == 2
    assert "has no entry 'nuu'" in wrong.err


def test_a_command_is_asked_for_only_where_it_runs(tmp_path: Path, penstock: Penstock) -> None:
    study = write_study(tmp_path, change=COMMAND, remove=WITHOUT_ADAPTER)
    assert penstock("check", study).code == 0
    here = penstock("check", study, "--set", "solver.concurrency=1")
    assert (here.code, "'no-such-solver' is not an installed program" in here.err) == (2, True)


def test_its_parameters_are_checked_all_the_same(tmp_path: Path, penstock: Penstock) -> None:
    study = write_study(tmp_path, change=COMMAND, remove=WITHOUT_ADAPTER)
    wrong = penstock("check", study, "--set", 'solver.command=["no-such-solver", "{lift}"]')
    assert (wrong.code, "'lift', which is not a parameter" in wrong.err) == (2, True)
