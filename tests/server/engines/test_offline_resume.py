"""Training on a recording that was stopped, or killed, and resumed ends as one that never stopped, to the last bit."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock_server.checkpoint import load_latest
from penstock_server.engines.offline import OfflineEngine
from penstock_server.study import Study
from recordings import recorded
from resumed import accounting, assert_same, with_training
from waiting import PATIENCE

BATCHES = 3 * 55 // 5  # three epochs of six simulations in batches of 5


def run(study: Study, directory: Path, stop_after: float | None = None) -> dict[str, Any]:
    """Run or resume; stop_after: seconds."""
    restore = load_latest(directory / "checkpoints") if (directory / "checkpoints").exists() else None
    directory.mkdir(exist_ok=True)
    engine = OfflineEngine(study, directory, threads=1, restore=restore)
    engine.start()
    if stop_after is not None:
        time.sleep(stop_after)
        engine.stop("told to")
    assert engine.wait(PATIENCE)
    return engine.close()


@pytest.fixture
def study(heat_study: Callable[..., Study], tmp_path: Path) -> Study:
    """Windows and pushforward, so that training draws random numbers."""
    recorded(tmp_path / "data.h5", [12, 11, 14, 12, 13, 11, 9, 10], held_out=2)
    return heat_study(
        samples={"window": 4},
        model={"name": "stepper:Stepper"},
        training={"source": str(tmp_path / "data.h5"), "epochs": 3, "loader_workers": 0, "pushforward": 2},
    )


def test_stopped_after_batches_killed_and_resumed(study: Study, tmp_path: Path) -> None:
    report = run(study, tmp_path / "undisturbed")
    assert (report["message"], report["training"]["batches"]) == ("all epochs done", BATCHES)
    for stop in (1, 10, 20):  # within epochs, and at a validation
        stopped = run(with_training(study, max_batches=stop, checkpoint_every=1e-6), tmp_path / "run")
        assert stopped["training"]["batches"] == stop
        if stop == 10:
            shutil.rmtree(load_latest(tmp_path / "run" / "checkpoints").path)
    resumed = run(study, tmp_path / "run")
    assert_same(tmp_path / "run", tmp_path / "undisturbed")
    assert accounting(resumed) == accounting(report)


def test_stopped_at_any_time_while_others_read(study: Study, tmp_path: Path) -> None:
    study = with_training(study, epochs=200, loader_workers=1)
    report = run(study, tmp_path / "undisturbed")
    for seconds in (0.0, 0.3, 2.0, 0.5):
        run(study, tmp_path / "run", seconds)
    resumed = run(study, tmp_path / "run")
    assert_same(tmp_path / "run", tmp_path / "undisturbed")
    assert accounting(resumed) == accounting(report)


def test_a_buffer_that_would_not_fit_in_memory_is_nothing_to_an_offline_study(study: Study, tmp_path: Path) -> None:
    buffer = study.buffer.model_copy(update={"capacity": 10**15})
    report = run(study.model_copy(update={"buffer": buffer}), tmp_path / "run")
    assert (report["status"], report["training"]["batches"]) == ("finished", BATCHES)
