"""The Navier-Stokes solver against exact flows, its order in time and the budgets of energy and enstrophy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.fft import irfft2, rfft2

from penstock_solvers import make_solver
from penstock_solvers.problems.navier_stokes2d import NavierStokes2D
from penstock_solvers.problems.random_fields import gaussian_random_field

Array = NDArray[np.float64]


def grid(points: int) -> tuple[Array, Array]:
    x, y = np.meshgrid(np.arange(points) / points, np.arange(points) / points, indexing="ij")
    return x, y


def lively(points: int, seed: float = 5.0) -> Array:
    """A random vorticity whose eddies turn over in about one time unit."""
    return 100 * gaussian_random_field(seed, points)


def follow(solver: NavierStokes2D, initial: Array, viscosity: float, forcing: float = 0.0) -> list[Array]:
    return [vorticity for _, vorticity in solver.integrate(initial, viscosity, forcing)]


@given(st.integers(1, 3), st.floats(1e-4, 0.1), st.floats(0.1, 20.0))
@settings(max_examples=15, deadline=None)
def test_taylor_green_vortices_decay_exactly(number: int, viscosity: float, amplitude: float) -> None:
    x, y = grid(16)
    initial = amplitude * np.cos(2 * np.pi * number * x) * np.cos(2 * np.pi * number * y)
    solver = NavierStokes2D(points=16, steps=4, interval=0.25)
    for step, vorticity in enumerate(follow(solver, initial, viscosity)):
        decay = np.exp(-viscosity * 8 * np.pi**2 * number**2 * 0.25 * step)
        np.testing.assert_allclose(vorticity, initial * decay, rtol=0, atol=1e-12 * amplitude)


def test_vortices_carried_by_a_shear_flow_that_depends_on_both_axes_obey_the_equation() -> None:
    # Not a steady flow, so that signs and axes of the advection matter: the first step against u·∇w by hand.
    x, y = grid(32)
    a, b = 2 * np.pi * x, 2 * np.pi * y
    w = np.sin(a) + np.cos(2 * b) + np.sin(a + b)
    # -∇²ψ = w, u = ∂ψ/∂y, v = -∂ψ/∂x
    u = (-2 * np.sin(2 * b) / 4 + np.cos(a + b) / 2) / (2 * np.pi)
    v = -(np.cos(a) + np.cos(a + b) / 2) / (2 * np.pi)
    advection = 2 * np.pi * (u * (np.cos(a) + np.cos(a + b)) + v * (-2 * np.sin(2 * b) + np.cos(a + b)))
    small = 1e-4
    solver = NavierStokes2D(points=32, steps=2, interval=small)
    after = follow(solver, w, 0.0, forcing=0.3)[1]
    rate = -advection + 0.3 * (np.sin(a + b) + np.cos(a + b))
    np.testing.assert_allclose((after - w) / small, rate, rtol=0, atol=1e-3)
    assert np.abs(advection).max() > 0.5


def test_a_flow_at_rest_takes_up_the_forcing_alone() -> None:
    # The forced mode is a steady flow of its own, so that w = f (1 - exp(-ν k² t)) / (ν k²) exactly.
    x, y = grid(16)
    force = np.sin(2 * np.pi * (x + y)) + np.cos(2 * np.pi * (x + y))
    rate = 0.01 * 8 * np.pi**2
    for step, vorticity in enumerate(follow(NavierStokes2D(points=16, steps=4), np.zeros((16, 16)), 0.01, 0.1)):
        np.testing.assert_allclose(vorticity, 0.1 * force * (1 - np.exp(-rate * step)) / rate, rtol=0, atol=1e-12)


def test_it_converges_with_fourth_order_in_time() -> None:
    initial = lively(32)

    def end(dt: float) -> Array:
        return follow(NavierStokes2D(points=32, steps=2, interval=0.4, dt=dt), initial, 2e-3, 0.1)[1]

    # All below what CFL asks for here.
    ends = [end(dt) for dt in (0.01, 0.005, 0.0025)]
    differences = [float(np.linalg.norm(a - b)) for a, b in itertools.pairwise(ends)]
    assert np.log2(differences[0] / differences[1]) > 3.6
    assert differences[1] < 1e-6 * np.linalg.norm(ends[-1])


def test_the_step_that_cfl_gives_is_accurate() -> None:
    initial = lively(32)
    ours = follow(NavierStokes2D(points=32, steps=2), initial, 1e-3, 0.1)[1]
    fine = follow(NavierStokes2D(points=32, steps=2, dt=0.005), initial, 1e-3, 0.1)[1]
    assert np.linalg.norm(ours - fine) < 1e-4 * np.linalg.norm(fine)


def energy_and_enstrophy(vorticity: Array) -> tuple[float, float]:
    """½⟨u²⟩ and ½⟨w²⟩."""
    n = vorticity.shape[0]
    k0, k1 = np.fft.fftfreq(n, 1 / n)[:, None], np.fft.rfftfreq(n, 1 / n)[None, :]
    squared = 4 * np.pi**2 * (k0**2 + k1**2)
    squared[0, 0] = 1
    stream = irfft2(rfft2(vorticity) / squared, s=(n, n))
    return 0.5 * float((stream * vorticity).mean()), 0.5 * float((vorticity**2).mean())


@given(st.integers(0, 2**32 - 1).map(float))
@settings(max_examples=5, deadline=None)
def test_without_viscosity_energy_and_enstrophy_are_conserved(seed: float) -> None:
    # Exactly so by the truncated equations, so that what is lost is the time integration's and vanishes with the step.
    initial = lively(24, seed)
    initial *= 3.0 / initial.std()
    lost = []
    for dt in (0.02, 0.01):
        first, *_, last = follow(NavierStokes2D(points=24, steps=3, interval=0.5, dt=dt), initial, 0.0)
        before, after = np.array(energy_and_enstrophy(first)), np.array(energy_and_enstrophy(last))
        lost.append(np.abs(after / before - 1))
    assert np.abs(last - first).max() > 0.1 * np.abs(first).max()
    assert np.all(lost[0] < 5e-5)
    assert np.all(lost[1] < 2e-6)
    assert np.all(lost[1] < lost[0] / 8)


def test_viscosity_takes_energy_at_the_rate_of_enstrophy() -> None:
    # d/dt ½⟨u²⟩ = -2ν ½⟨w²⟩ without forcing
    viscosity, interval = 2e-3, 0.01
    budgets = np.array(
        [energy_and_enstrophy(w) for w in follow(NavierStokes2D(32, 41, interval), lively(32), viscosity)]
    )
    lost = budgets[0, 0] - budgets[-1, 0]
    dissipated = 2 * viscosity * interval * (budgets[:, 1].sum() - 0.5 * (budgets[0, 1] + budgets[-1, 1]))
    assert lost == pytest.approx(dissipated, rel=1e-5)


@given(st.integers(0, 2**32 - 1).map(float), st.floats(1e-4, 1e-1), st.floats(0.0, 1.0))
@settings(max_examples=8, deadline=None)
def test_mean_vorticity_is_conserved_whatever_the_parameters(seed: float, viscosity: float, forcing: float) -> None:
    for _, fields in NavierStokes2D(points=16, steps=4, initial_scale=30).run(
        {"initial": seed, "viscosity": viscosity, "forcing": forcing}
    ):
        assert abs(float(fields["vorticity"].astype(float).mean())) < 1e-7


def test_the_first_time_step_is_the_random_field_itself() -> None:
    solver = make_solver("navier_stokes2d", {"points": 32, "steps": 3, "interval": 2.0})
    steps = list(solver.run({"initial": 11.0}))
    assert [time for time, _ in steps] == [0.0, 2.0, 4.0]
    first = steps[0][1]["vorticity"]
    assert (first.shape, str(first.dtype)) == (solver.fields["vorticity"].shape, solver.fields["vorticity"].dtype)
    modes, expected = rfft2(first), rfft2(gaussian_random_field(11.0, 32))
    kept = np.zeros(modes.shape, dtype=bool)
    kept[np.ix_([*range(11), *range(-10, 0)], range(11))] = True  # wave numbers below 32/3
    np.testing.assert_allclose(modes[kept], expected[kept], rtol=0, atol=1e-4)
    assert np.abs(modes[~kept]).max() < 1e-4


def test_parameters_go_before_options() -> None:
    by_option = list(NavierStokes2D(16, 3, viscosity=0.02, forcing=0.4).run({"initial": 1.0}))
    by_parameter = list(NavierStokes2D(16, 3).run({"initial": 1.0, "viscosity": 0.02, "forcing": 0.4}))
    default = list(NavierStokes2D(16, 3).run({"initial": 1.0}))
    np.testing.assert_array_equal(by_option[2][1]["vorticity"], by_parameter[2][1]["vorticity"])
    assert np.abs(default[2][1]["vorticity"] - by_option[2][1]["vorticity"]).max() > 0.01


def test_a_later_begin_leaves_out_the_first_steps_and_nothing_else() -> None:
    whole = list(NavierStokes2D(16, 6, interval=0.5, dt=0.02).run({"initial": 3.0}))
    late = list(NavierStokes2D(16, 3, interval=0.5, begin=1.5, dt=0.02).run({"initial": 3.0}))
    assert [time for time, _ in late] == [1.5, 2.0, 2.5]
    for (_, expected), (_, got) in zip(whole[3:], late, strict=True):
        # Not bit for bit: the internal steps are cut at other times.
        np.testing.assert_allclose(got["vorticity"], expected["vorticity"], atol=1e-6)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "parameter 'initial' is missing: navier_stokes2d takes initial, viscosity .optional., forcing .optional."),
        ({"initial": 1.0, "viscocity": 0.1}, "parameter 'viscocity': .*did you mean 'viscosity'"),
        ({"initial": 1.5}, "seed 1.5: expected a whole number"),
        ({"initial": 1.0, "viscosity": -0.1}, "viscosity = -0.1: expected 0 or more"),
    ],
)
def test_wrong_parameters_are_named(parameters: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        next(NavierStokes2D(points=8).run(parameters))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": 4}, "points = 4"),
        ({"steps": 0}, "steps = 0"),
        ({"interval": 0.0}, "interval"),
        ({"dt": -1.0}, "dt"),
        ({"begin": -1.0}, "begin = -1"),
    ],
)
def test_wrong_options_are_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NavierStokes2D(**options)  # type: ignore[arg-type]
