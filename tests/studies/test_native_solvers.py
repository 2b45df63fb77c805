"""Whole studies of solvers on several MPI ranks, as their users run them: the examples, and a solver instrumented for Melissa."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command import penstock, report
from native import Installed

pytestmark = [pytest.mark.slow]

MELISSA = """
[study]
name = "melissa"
[parameters]
a = [2.0, 3.0]
[solver]
command = ["./melissa", "{a}", "10", "9"]
ranks = 3
simulations = 3
validation_simulations = 1
[fields]
temperature = {}
pressure = { shape = [3, 3], components = 2 }
[buffer]
capacity = 100
watermark = 10
[model]
name = "mlp"
[training]
batch_size = 5
"""


@pytest.fixture(autouse=True)
def libraries(installed: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(installed.prefix / "lib"))


def check(out: Path, simulations: int, steps: int) -> None:
    said: dict[str, Any] = report(out)
    samples = said["samples"]
    assert said["status"] == "finished"
    assert said["simulations"]["finished"] == simulations + 1
    assert samples["expected"] == samples["unique"] == samples["trained_unique"] == simulations * steps
    assert samples["duplicates_dropped"] == samples["rejected"] == samples["incomplete_dropped"] == 0


def test_the_example_of_a_solver_on_mpi_ranks_is_a_study(installed: Installed, tmp_path: Path) -> None:
    study = installed.example("heat_fortran_mpi") / "study.toml"
    small = {
        "study.engine": "inline",
        "solver.command": '["./heat", "12", "8"]',
        "solver.simulations": "3",
        "solver.validation_simulations": "1",
        "buffer.watermark": "4",
        "buffer.capacity": "100",
        "training.batch_size": "4",
    }
    changes = [part for name, value in small.items() for part in ("--set", f"{name}={value}")]
    penstock("run", study, "--out", tmp_path / "run", *changes)
    check(tmp_path / "run", 3, 8)


def test_a_solver_instrumented_for_melissa_completes_a_study(installed: Installed, tmp_path: Path) -> None:
    source = Path(__file__).parents[1] / "clients" / "mpi" / "melissa.c"
    program = installed.program("mpicc", source, "penstock-melissa-mpi", "-DWITH_MPI")
    (tmp_path / "melissa").symlink_to(program)
    (tmp_path / "study.toml").write_text(MELISSA)
    penstock("run", tmp_path / "study.toml", "--out", tmp_path / "run", "--set", "study.engine=inline")
    check(tmp_path / "run", 3, 10)
