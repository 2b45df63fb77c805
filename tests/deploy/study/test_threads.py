"""The cores are shared between solvers and training."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from penstock.study import ThreadBudget, keep_off_training_cores, make_openmp_wait_passively, plan_threads
from penstock.study.threads import TRAINING_ENVIRONMENT, available_cores
from penstock_server.study import Study

Make = Callable[..., Study]


@pytest.mark.parametrize(
    ("concurrency", "solver_ranks", "training_ranks", "cores", "solvers", "training"),
    [
        (2, 1, 1, 8, 2, 6),
        (2, 3, 1, 8, 6, 2),
        (2, 1, 2, 8, 2, 3),
        (2, 1, 1, 2, 2, 1),  # nothing is left: training shares a core rather than not run
        (64, 4, 1, 8, 8, 1),
        (0, 1, 1, 8, 0, 8),  # workers elsewhere
        (1, 1, 16, 8, 1, 1),
    ],
)
def test_training_gets_what_solvers_leave(
    heat_study: Make, concurrency: int, solver_ranks: int, training_ranks: int, cores: int, solvers: int, training: int
) -> None:
    study = heat_study(
        solver={"concurrency": concurrency, "ranks": solver_ranks},
        training={"ranks": training_ranks, "threads": "auto"},
    )
    budget = plan_threads(study, cores)
    assert (budget.cores, budget.solvers, budget.training) == (cores, solvers, training)


def test_the_study_file_has_the_last_word(heat_study: Make) -> None:
    assert plan_threads(heat_study(training={"threads": 5}), 2).training == 5


def test_own_cores_are_the_last_ones_and_one_is_left_for_the_rest(heat_study: Make) -> None:
    usable = sorted(os.sched_getaffinity(0))
    assert len(usable) > 1, "needs two cores"

    def budget(**training: object) -> ThreadBudget:
        return plan_threads(heat_study(solver={"concurrency": 2}, training=training))

    assert budget(threads=1).own == ()
    one = budget(threads=1, own_cores=True)
    assert (one.own, one.solvers) == (tuple(usable[-1:]), min(2, len(usable) - 1))
    assert f"on cores of its own ({usable[-1]})" in str(one)
    assert budget(threads=len(usable), own_cores=True).own == tuple(usable[1:])


def test_what_is_started_beside_training_stays_off_its_cores(heat_study: Make) -> None:
    budget = plan_threads(heat_study(training={"threads": 1, "own_cores": True}))
    before = os.sched_getaffinity(0)
    with keep_off_training_cores(budget):
        child = subprocess.run(
            [sys.executable, "-c", "import os; print(*sorted(os.sched_getaffinity(0)))"],
            capture_output=True,
            text=True,
            check=True,
        )
    assert child.stdout.split() == [str(core) for core in sorted(before - set(budget.own))]
    assert os.sched_getaffinity(0) == before


def test_only_cores_that_this_process_may_use_count(heat_study: Make) -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert available_cores() == 1
        assert plan_threads(heat_study()).cores == 1
    finally:
        os.sched_setaffinity(0, before)


def test_waiting_threads_sleep_unless_the_user_said_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TRAINING_ENVIRONMENT:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    make_openmp_wait_passively()
    assert {name: os.environ[name] for name in TRAINING_ENVIRONMENT} == {
        **TRAINING_ENVIRONMENT,
        "OMP_WAIT_POLICY": "ACTIVE",
    }
