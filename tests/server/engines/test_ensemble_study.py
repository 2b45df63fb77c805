"""A study of an ensemble: what it reports and exports, and that it goes on as one that never stopped."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock_client import PenstockError
from penstock_server.checkpoint import load_latest
from penstock_server.engines.inline import InlineEngine
from penstock_server.study import Study
from penstock_server.surrogate import Surrogate
from penstock_solvers.problems.heat2d import Heat2D
from resumed import accounting, assert_same, with_training
from waiting import PATIENCE

Make = Callable[..., Study]
ENSEMBLE = {"members": 3, "min_batches": 60, "threads": 1}


def run(study: Study, directory: Path) -> dict[str, Any]:
    restore = load_latest(directory / "checkpoints") if (directory / "checkpoints").exists() else None
    directory.mkdir(exist_ok=True)
    engine = InlineEngine(study, directory, threads=1, solver=Heat2D(points=12, steps=15), restore=restore)
    engine.start()
    assert engine.wait(PATIENCE)
    return engine.close()


def test_it_reports_its_members_and_resumes_to_the_last_bit(heat_study: Make, tmp_path: Path) -> None:
    study = heat_study(training=ENSEMBLE)
    report = run(study, tmp_path / "whole")
    assert report["status"] == "finished", report["message"]
    assert report["samples"]["unique"] == report["samples"]["trained_unique"] == 6 * 15
    members = report["validation"]["members"]
    assert len(members["relative_l2"]) == 3
    assert report["validation"]["relative_l2"] < max(members["relative_l2"])  # that of the mean
    assert members["spread"] > 0
    assert members["spread_to_error"] > 0
    assert -1 <= members["correlation"] <= 1

    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["kind"] == "validation"][-1]
    assert last["members"]["relative_l2"] == members["relative_l2"]
    assert last["spread"] == members["spread"]

    surrogate = Surrogate.load(tmp_path / "whole")
    assert surrogate.card["members"] == 3
    assert surrogate.card["validation"]["members"] == members
    point = dict.fromkeys(surrogate.parameters, 300.0)
    prediction = surrogate.predict(point, [3, 4])
    assert prediction.spread["T"].shape == prediction.fields["T"].shape == (2, 12, 12, 1)
    assert np.all(prediction.spread["T"] > 0)

    assert run(with_training(study, max_batches=7), tmp_path / "cut")["training"]["batches"] == 7
    with pytest.raises(PenstockError, match=re.escape("training.members is 2 and was 3")):
        run(heat_study(training={**ENSEMBLE, "members": 2}), tmp_path / "cut")
    resumed = run(study, tmp_path / "cut")
    assert_same(tmp_path / "cut", tmp_path / "whole")
    assert accounting(resumed) == accounting(report)


def test_one_model_reports_no_members(heat_study: Make, tmp_path: Path) -> None:
    report = run(heat_study(training={"max_batches": 5}), tmp_path / "run")
    assert "members" not in report["validation"]
    assert (
        Surrogate.load(tmp_path / "run")
        .predict(dict.fromkeys(("initial", "left", "right", "bottom", "top"), 300.0))
        .spread
        == {}
    )
