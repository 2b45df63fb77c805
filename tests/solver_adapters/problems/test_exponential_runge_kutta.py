"""The exponential Runge-Kutta scheme: its order on stiff modes, its exactness, and its steps."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_solvers.problems.exponential_runge_kutta import ExponentialRungeKutta, Modes

RATES = np.array([-100.0, -1.0, 0.0, 50.0j])


def unlimited(_: Modes) -> float:
    return math.inf


@given(st.floats(1e-3, 10.0), st.floats(-2.0, 2.0))
def test_a_constant_rate_is_integrated_exactly_for_any_step(step: float, rate: float) -> None:
    stepper = ExponentialRungeKutta(RATES, lambda _, modes: np.full_like(modes, rate), unlimited)
    start = np.array([1.0, 2.0, 3.0, 4.0], dtype=complex)
    grown = np.array([step if r == 0 else (np.exp(r * step) - 1) / r for r in RATES])
    np.testing.assert_allclose(
        stepper.advance(0.0, start, step), np.exp(RATES * step) * start + grown * rate, rtol=1e-11, atol=1e-11
    )


def test_it_has_fourth_order() -> None:
    # v = exp(rt) (1 + sin(t)/2) solves dv/dt = r v + v² exp(-rt) cos(t)/2 / (1 + sin(t)/2)², a rate of time and solution.
    rates = np.array([-3.0, 0.0, 10.0j])

    def exact(time: float) -> Modes:
        return np.asarray(np.exp(rates * time) * (1 + 0.5 * np.sin(time)))

    def rate(time: float, modes: Modes) -> Modes:
        return np.asarray(modes**2 * np.exp(-rates * time) * 0.5 * np.cos(time) / (1 + 0.5 * np.sin(time)) ** 2)

    errors = []
    for dt in (0.04, 0.02, 0.01):
        stepper = ExponentialRungeKutta(rates, rate, unlimited)
        modes = exact(0.0)
        for step in range(round(1 / dt)):
            modes = stepper.step(step * dt, modes, dt)
        errors.append(np.abs(modes - exact(1.0)))
    assert np.all(np.log2(np.array(errors[:-1]) / errors[1:]) > 3.7)


def test_steps_are_halved_where_the_solution_asks_for_it_and_still_end_on_the_interval() -> None:
    taken: list[float] = []

    class Watched(ExponentialRungeKutta):
        def step(self, time: float, modes: Modes, dt: float) -> Modes:
            taken.append(dt)
            return super().step(time, modes, dt)

    # dv/dt = v grows from 1 to e², and asks for steps of at most 0.2/|v|.
    stepper = Watched(np.zeros(1), lambda _, modes: modes, lambda modes: 0.2 / float(np.abs(modes).max()))
    end = stepper.advance(0.0, np.ones(1, dtype=complex), 2.0)
    assert sum(taken) == pytest.approx(2.0, rel=1e-12)
    assert taken[0] <= 0.2
    assert taken[-1] < taken[0] / 4
    np.testing.assert_allclose(
        end, np.exp(2.0), rtol=2.0 * 0.2**4 / 120
    )  # the scheme's error per unit of time is dt⁴/120


def test_a_solution_that_blows_up_is_an_error_that_says_when() -> None:
    # dv/dt = v² is infinite at time 1.
    stepper = ExponentialRungeKutta(np.zeros(1), lambda _, v: v**2, lambda v: 0.1 / float(np.abs(v).max()))
    with pytest.raises(FloatingPointError, match="the solution blows up at time 1: no time step is small enough"):
        stepper.advance(0.0, np.ones(1, dtype=complex), 2.0)


def test_a_solution_that_is_not_finite_is_an_error() -> None:
    stepper = ExponentialRungeKutta(np.zeros(1), lambda _, v: v * math.nan, unlimited)
    with pytest.raises(FloatingPointError, match="not finite at time 1.5 with time steps of 0.5"):
        stepper.advance(1.0, np.ones(1, dtype=complex), 0.5)
