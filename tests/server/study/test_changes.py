"""What may change when a study is resumed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from penstock_server.study import Study, StudyChanged, changeable, expect_same_study, study_state

Make = Callable[..., Study]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"parameters": {"left": [100.0, 600.0]}}, "parameters.bounds.left is [100.0, 600.0] and was [100.0, 500.0]"),
        ({"study": {"seed": 4}}, "study.seed is 4 and was 3"),
        ({"solver": {"simulations": 9}}, "solver.simulations is 9 and was 6"),
        ({"samples": {"window": 2}}, "samples.window is 2 and was 1"),
        ({"model": {"hidden": [7]}}, "model.hidden is [7] and was 'not there'"),
        ({"fields": {"q": {}}}, "fields.q"),
        ({"fields": {"T": {"reference": 273.15}}}, "fields.T.reference is 273.15 and was 0.0"),
        ({"training": {"source": "data.h5"}}, "training.source is 'data.h5' and was None"),
    ],
)
def test_a_bound_key_is_refused_by_name(heat_study: Make, changes: dict[str, Any], named: str) -> None:
    before = json.loads(json.dumps(study_state(heat_study())))
    with pytest.raises(StudyChanged, match=re.escape(named)):
        expect_same_study(before, heat_study(**changes))


def test_other_keys_may_change_and_keys_of_later_versions_may_be_there(heat_study: Make) -> None:
    before = study_state(heat_study())
    del before["samples"]["stride"]
    del before["fields"]["T"]["reference"]
    changed = heat_study(
        training={"optimizer": {"name": "sgd", "lr": 1.0}, "batch_size": 7},
        solver={"concurrency": 3, "retries": 9},
        server={"client_timeout": 99.0},
        buffer={"capacity": 70},
    )
    expect_same_study(before, changed)
    assert changeable("training.optimizer.lr")
    assert not changeable("training.source")
