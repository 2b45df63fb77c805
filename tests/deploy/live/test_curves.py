"""Curves stay short, and forget what training has gone back behind."""

from __future__ import annotations

import itertools
import math

import pytest

from penstock.live.curves import MOST_POINTS, Curve, TrainingCurve, validation_values


def train(batches: int, **more: float | None) -> dict[str, float | None]:
    return {"batches": batches, "time": batches / 10, "loss": 1.0, "received": 5.0 * batches, **more}


def test_a_long_study_has_a_bounded_curve_over_all_of_it() -> None:
    curve = TrainingCurve()
    for batches in range(20 * MOST_POINTS):
        curve.add(train(batches))
    assert MOST_POINTS / 2 <= len(curve) <= MOST_POINTS
    batches = curve.columns["batches"]
    assert batches[0] == 0
    assert batches[-1] > 19.5 * MOST_POINTS
    steps = {b - a for a, b in itertools.pairwise(batches)}
    assert max(steps) <= 2 * min(steps)
    assert all(len(column) == len(curve) for column in curve.columns.values())


def test_training_that_went_back_to_a_checkpoint_draws_no_loop() -> None:
    curve = TrainingCurve()
    for batches in (0, 10, 20, 30, 15, 25):
        curve.add(train(batches))
    assert curve.columns["batches"] == [0, 10, 15, 25]
    assert curve.rebuilt >= 2


def test_rates_and_losses_that_are_not_known_are_no_numbers() -> None:
    curve = TrainingCurve()
    curve.add(train(1, loss=None))
    curve.add(train(2, loss=4.0))
    curve.add(train(3, loss=-1.0))
    assert math.isnan(curve.columns["loss"][0])
    assert math.isnan(curve.columns["received"][0])
    assert curve.columns["received"][1] == pytest.approx(50)  # 5 samples in 0.1 s
    assert curve.columns["smooth_loss"][1] == 4.0
    assert math.isnan(curve.columns["loss"][2])


def test_a_study_of_several_fields_has_a_curve_for_each() -> None:
    curve = Curve(validation_values)
    curve.add({"batches": 1, "time": 0.1, "relative_l2": 0.5})
    rebuilt = curve.rebuilt
    fields = {"U": {"relative_l2": 0.2}, "p": {"relative_l2": 0.4}}
    curve.add({"batches": 2, "time": 0.2, "relative_l2": 0.3, "relative_l2_p99": 0.9, "fields": fields})
    assert curve.rebuilt > rebuilt
    assert (curve.last("field_U"), curve.last("field_p"), curve.last("mean")) == (0.2, 0.4, 0.3)
    assert math.isnan(curve.columns["field_U"][0])
