"""The Lorenz solver against its fixed points, its order and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from penstock_solvers import make_solver
from penstock_solvers.problems.lorenz import Lorenz

START = (1.0, -2.0, 20.0)


def reference(end: float) -> np.ndarray:
    """At END, by scipy's DOP853."""

    def rate(_: float, state: np.ndarray) -> list[float]:
        x, y, z = state
        return [10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z]

    return solve_ivp(rate, (0, end), START, method="DOP853", rtol=1e-12, atol=1e-12).y[:, -1]


def last(substeps: int, steps: int = 101) -> np.ndarray:
    *_, (_, state) = Lorenz(steps=steps, substeps=substeps).integrate(START, 10.0, 28.0, 8 / 3)
    return np.array(state)


def test_it_converges_with_fourth_order_to_what_scipy_finds() -> None:
    exact = reference(1.0)
    errors = [float(np.abs(last(substeps) - exact).max()) for substeps in (1, 2, 4)]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(orders > 3.7)
    assert errors[-1] < 1e-5


def test_the_default_step_follows_scipy() -> None:
    solver = Lorenz(steps=201)
    *_, (time, fields) = solver.run(dict(zip(("x0", "y0", "z0"), START, strict=True)))
    assert math.isclose(time, 2.0)
    np.testing.assert_allclose(fields["state"], reference(2.0), atol=1e-3)


@given(st.floats(0.5, 20.0), st.floats(1.5, 24.0), st.floats(0.5, 4.0), st.sampled_from([-1.0, 0.0, 1.0]))
def test_fixed_points_stay_fixed(sigma: float, rho: float, beta: float, side: float) -> None:
    away = side * math.sqrt(beta * (rho - 1))
    point = (away, away, (rho - 1) * abs(side))
    parameters = {"sigma": sigma, "rho": rho, "beta": beta, "x0": point[0], "y0": point[1], "z0": point[2]}
    states = np.array([fields["state"] for _, fields in Lorenz(steps=50).run(parameters)])
    np.testing.assert_allclose(states, np.tile(point, (50, 1)), rtol=1e-5, atol=1e-6)


def test_the_first_time_step_is_the_initial_point() -> None:
    solver = make_solver("lorenz", {"steps": 3, "interval": 0.5})
    steps = list(solver.run({"x0": 1.0, "y0": 2.0, "z0": 3.0}))
    assert [time for time, _ in steps] == [0.0, 0.5, 1.0]
    np.testing.assert_array_equal(steps[0][1]["state"], np.array([1, 2, 3], dtype=np.float32))
    assert steps[0][1]["state"].dtype == np.dtype(solver.fields["state"].dtype)


def test_a_state_that_overflows_is_an_error() -> None:
    with pytest.raises(FloatingPointError, match="raise `substeps`"):
        list(Lorenz(interval=1.0, substeps=1).run({"x0": 1e3, "y0": 0.0, "z0": 1e3}))


def test_parameters_are_checked() -> None:
    with pytest.raises(ValueError, match="parameter 'z0' is missing: lorenz takes x0, y0, z0, sigma .optional., rho"):
        next(Lorenz().run({"x0": 1.0, "y0": 1.0}))
    with pytest.raises(ValueError, match="steps = 0"):
        Lorenz(steps=0)
