"""A study that is resumed with other settings: each is applied, or refused by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock_client import PenstockError
from penstock_server.checkpoint import load_latest
from penstock_server.engines.inline import InlineEngine
from penstock_server.study import Study
from penstock_solvers.problems.heat2d import Heat2D
from resumed import parts, with_training
from waiting import PATIENCE

Make = Callable[..., Study]


def run(study: Study, directory: Path) -> dict[str, Any]:
    restore = load_latest(directory / "checkpoints") if (directory / "checkpoints").exists() else None
    directory.mkdir(exist_ok=True)
    engine = InlineEngine(study, directory, threads=1, solver=Heat2D(points=12, steps=15), restore=restore)
    engine.start()
    assert engine.wait(PATIENCE)
    return engine.close()


@pytest.fixture
def stopped(heat_study: Make, tmp_path: Path) -> Path:
    """The run directory of a study that was stopped after six batches."""
    assert run(with_training(heat_study(), max_batches=6), tmp_path / "run")["training"]["batches"] == 6
    return tmp_path / "run"


def test_another_learning_rate_and_optimizer_are_applied(heat_study: Make, stopped: Path) -> None:
    report = run(heat_study(training={"optimizer": {"name": "adam", "lr": 0.5}, "max_batches": 7}), stopped)
    assert parts(stopped)["trainer"]["optimizer"]["param_groups"][0]["lr"] == 0.5
    assert not [warning for warning in report["warnings"] if "optimizer" in warning]
    report = run(heat_study(training={"optimizer": {"name": "sgd", "lr": 1e-9}, "max_batches": 8}), stopped)
    assert parts(stopped)["trainer"]["optimizer"]["param_groups"][0]["lr"] == 1e-9
    assert "[training] optimizer was changed at batch 7: the new one began without momenta" in report["warnings"]


@pytest.mark.parametrize("concurrency", [1, 4])
def test_another_concurrency_is_applied(heat_study: Make, stopped: Path, concurrency: int) -> None:
    report = run(heat_study(solver={"concurrency": concurrency}), stopped)
    assert report["status"] == "finished"
    assert report["samples"]["unique"] == report["samples"]["expected"] == 6 * 15
    assert len(parts(stopped)["coordinator"]["production"]["places"]) == concurrency


def test_what_cannot_change_is_refused_by_name(heat_study: Make, stopped: Path) -> None:
    for changes, named in (
        ({"model": {"hidden": [9]}}, "model.hidden is [9]"),
        ({"samples": {"window": 2}, "model": {"name": "unet"}}, "samples.window is 2 and was 1"),
        ({"buffer": {"capacity": 11}}, "the checkpoint holds"),
    ):
        with pytest.raises(PenstockError, match=re.escape(named)):
            run(heat_study(**changes), stopped)
