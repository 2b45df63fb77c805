"""The heat equation's parameters: known ones only, and all of them."""

from __future__ import annotations

import numpy as np
import pytest

from penstock_solvers.problems.heat2d import TEMPERATURES, Heat2D


def test_a_parameter_it_does_not_know_is_named_with_those_it_takes() -> None:
    parameters = {**dict.fromkeys(TEMPERATURES, 300.0), "toop": 1.0}
    expected = (
        "parameter 'toop': heat2d does not know it, it takes initial, left, right, bottom, top; did you mean 'top'?"
    )
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        next(Heat2D(points=4).run(parameters))
    assert str(caught.value) == expected


@pytest.mark.parametrize("missing", TEMPERATURES)
def test_a_missing_parameter_is_named(missing: str) -> None:
    parameters = {name: 300.0 for name in TEMPERATURES if name != missing}
    with pytest.raises(ValueError, match=f"parameter '{missing}' is missing: heat2d takes initial, left, right"):
        next(Heat2D(points=4).run(parameters))


def test_a_plate_as_warm_as_its_walls_stays_so() -> None:
    *_, (time, fields) = Heat2D(points=8, steps=5, dt=0.5).run(dict.fromkeys(TEMPERATURES, 321.0))
    assert time == 2.5
    np.testing.assert_allclose(fields["T"], 321.0, rtol=1e-6)


def test_a_sine_decays_by_the_factor_of_implicit_euler() -> None:
    # One warm wall less than the steady state: the difference between two runs is linear in the walls and the initial state.
    solver = Heat2D(points=15, steps=3, dt=0.1)
    cold = dict.fromkeys(TEMPERATURES, 0.0)
    warm = [fields["T"].astype(float) for _, fields in solver.run({**cold, "initial": 1.0})]
    y, x = np.meshgrid(np.arange(1, 16) * np.pi / 16, np.arange(1, 16) * np.pi / 16, indexing="ij")
    lowest = np.sin(x) * np.sin(y)
    amplitudes = [float((lowest * field).sum()) for field in warm]
    rate = 2 * (2 - 2 * np.cos(np.pi / 16)) / (10 / 16) ** 2
    np.testing.assert_allclose(np.array(amplitudes[1:]) / amplitudes[:-1], 1 / (1 + 0.1 * rate), rtol=1e-6)
