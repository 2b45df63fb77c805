"""A study with its samples on the device and every option of the step: it learns, and goes on as one that never stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock_server.checkpoint import load_latest
from penstock_server.engines.inline import InlineEngine
from penstock_server.study import Study
from penstock_solvers.problems.heat2d import Heat2D
from resumed import accounting, assert_same, with_training
from waiting import PATIENCE

Make = Callable[..., Study]
OPTIONS = {"accumulate": 2, "gradient_clip": 1.0, "precision": "bfloat16", "min_batches": 60, "threads": 1}


def run(study: Study, directory: Path) -> dict[str, Any]:
    restore = load_latest(directory / "checkpoints") if (directory / "checkpoints").exists() else None
    directory.mkdir(exist_ok=True)
    engine = InlineEngine(study, directory, threads=1, solver=Heat2D(points=12, steps=15), restore=restore)
    engine.start()
    assert engine.wait(PATIENCE)
    report = engine.close()
    assert report["status"] == "finished", report["message"]
    return report


def test_storage_on_the_device_changes_nothing_and_it_resumes_to_the_last_bit(heat_study: Make, tmp_path: Path) -> None:
    report = run(heat_study(training=OPTIONS), tmp_path / "host")
    assert report["samples"]["unique"] == report["samples"]["trained_unique"] == 6 * 15
    study = heat_study(training=OPTIONS, buffer={"storage": "device"})
    assert accounting(run(study, tmp_path / "device")) == accounting(report)
    assert_same(tmp_path / "device", tmp_path / "host")

    assert run(with_training(study, max_batches=7), tmp_path / "cut")["training"]["batches"] == 7
    assert accounting(run(study, tmp_path / "cut")) == accounting(report)
    assert_same(tmp_path / "cut", tmp_path / "host")


@pytest.mark.gpu
@pytest.mark.parametrize("storage", ["host", "device"])
def test_a_study_on_a_gpu_has_the_accounts_and_the_error_of_one_on_the_cpu(
    heat_study: Make, tmp_path: Path, storage: str
) -> None:
    options = {**OPTIONS, "precision": "float32"}
    on_cpu = run(heat_study(training=options), tmp_path / "cpu")
    study = heat_study(training={**options, "device": "cuda"}, buffer={"storage": storage})
    on_gpu = run(study, tmp_path / "gpu")
    assert run(with_training(study, max_batches=7), tmp_path / "cut")["training"]["batches"] == 7
    resumed = run(study, tmp_path / "cut")
    assert on_gpu["training"]["device"].startswith("cuda")
    assert on_gpu["samples"] == on_cpu["samples"] == resumed["samples"]
    assert on_gpu["validation"]["relative_l2"] == pytest.approx(on_cpu["validation"]["relative_l2"], rel=0.05)
    assert resumed["validation"]["relative_l2"] == pytest.approx(on_gpu["validation"]["relative_l2"], rel=0.05)
