"""Random fields: their spectrum, and what the same seed gives twice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_solvers.problems.random_fields import gaussian_random_field, gaussian_spectrum, wave_vectors

SEEDS = st.integers(0, 2**32 - 1).map(float)


@given(SEEDS, st.integers(3, 20))
@settings(max_examples=30, deadline=None)
def test_a_seed_gives_one_field_whose_large_scales_do_not_depend_on_the_grid(seed: float, points: int) -> None:
    coarse, fine = gaussian_random_field(seed, points), gaussian_random_field(seed, 2 * points)
    assert np.array_equal(coarse, gaussian_random_field(seed, points))
    highest = (points - 1) // 2
    for k0 in range(-highest, highest + 1):
        for k1 in range(highest + 1):
            ours, theirs = np.fft.fft2(coarse)[k0, k1] / points**2, np.fft.fft2(fine)[k0, k1] / (2 * points) ** 2
            assert abs(ours - theirs) < 1e-15
    assert abs(coarse.mean()) < 1e-15


def test_the_map_from_seed_to_field_stays_as_documented() -> None:
    field = gaussian_random_field(7.0, 4)  # wave vectors (-1, 1), (0, 1), (1, 0), (1, 1)
    numbers = np.random.default_rng(7).standard_normal((4, 2))
    x, y = np.meshgrid(np.arange(4) / 4, np.arange(4) / 4, indexing="ij")
    expected = np.zeros((4, 4))
    for (k0, k1), (a, b) in zip([(-1, 1), (0, 1), (1, 0), (1, 1)], numbers, strict=True):
        variance = 7**1.5 * (4 * np.pi**2 * (k0**2 + k1**2) + 49) ** -2.5
        angle = 2 * np.pi * (k0 * x + k1 * y)
        expected += np.sqrt(2 * variance) * (a * np.cos(angle) + b * np.sin(angle))
    np.testing.assert_allclose(field, expected, rtol=0, atol=1e-15)


def test_coefficients_have_the_variance_of_the_covariance_operator() -> None:
    points, draws = 12, 3000
    modes = np.array([np.fft.fft2(gaussian_random_field(seed, points)) for seed in range(draws)]) / points**2
    k0, k1 = wave_vectors(points)
    ratio = (np.abs(modes[:, k0, k1]) ** 2).mean(axis=0) / gaussian_spectrum(k0, k1, 7**1.5, 49.0, 2.5)
    # |coefficient|² is λ times an exponential variable, so a mean over n draws deviates by 1/sqrt(n).
    assert np.abs(ratio - 1).max() < 4.5 / np.sqrt(draws)
    assert abs(ratio.mean() - 1) < 4.5 / np.sqrt(draws * ratio.size)


def test_the_variance_at_a_point_is_the_sum_of_the_spectrum() -> None:
    points, draws = 8, 3000
    values = np.array([gaussian_random_field(seed, points)[[0, 3], [5, 2]] for seed in range(draws)])
    k0, k1 = wave_vectors(points)
    expected = 2 * gaussian_spectrum(k0, k1, 7**1.5, 49.0, 2.5).sum()
    assert np.abs((values**2).mean(axis=0) / expected - 1).max() < 4.5 * np.sqrt(2 / draws)


@pytest.mark.parametrize("seed", [-1.0, 0.5, 2.0**32, float("nan"), float("inf")])
def test_what_is_no_seed_is_refused(seed: float) -> None:
    with pytest.raises(ValueError, match="expected a whole number, 0 <= seed < 2"):
        gaussian_random_field(seed, 8)


def test_a_grid_too_small_for_a_wave_is_refused() -> None:
    with pytest.raises(ValueError, match="points = 2: a random field needs a grid of at least 3"):
        gaussian_random_field(0.0, 2)
