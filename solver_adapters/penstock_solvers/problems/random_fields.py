"""Random fields from a seed: a seed gives the same field on every machine, and the same large scales on every grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2

SEEDS = 2**32


def seeded_generator(seed: float) -> np.random.Generator:
    """Make numpy's default generator (PCG64) from a parameter that is a seed.

    Args:
        seed: a whole number, 0 <= seed < 2**32, as a float like all parameters.

    Returns:
        The generator.

    Raises:
        ValueError: any other number.
    """
    if not (0 <= seed < SEEDS and float(seed).is_integer()):
        raise ValueError(
            f'seed {seed!r}: expected a whole number, 0 <= seed < 2**32; write initial = "seed" in [parameters]'
        )
    return np.random.default_rng(int(seed))


def wave_vectors(points: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """List one of each pair (k, -k) of the non-zero wave vectors below the Nyquist number of a (points, points) grid.

    Args:
        points: number of grid points along each side.

    Returns:
        Components k0, k1 along the first and second axis, each (n,), sorted by max(|k0|, |k1|), then k0, then k1. The
        list of a coarser grid is therefore the beginning of the list of a finer one.
    """
    highest = (points - 1) // 2
    k0, k1 = np.meshgrid(np.arange(-highest, highest + 1), np.arange(highest + 1), indexing="ij")
    half = (k1 > 0) | (k0 > 0)
    k0, k1 = k0[half], k1[half]
    order = np.lexsort((k1, k0, np.maximum(np.abs(k0), k1)))
    return k0[order], k1[order]


def gaussian_spectrum(
    k0: NDArray[np.int64], k1: NDArray[np.int64], scale: float, shift: float, power: float
) -> NDArray[np.float64]:
    """Compute eigenvalues of the covariance operator scale (-∇² + shift I)^-power on the unit torus.

    Args:
        k0: components of the wave vectors along the first axis, (n,).
        k1: components of the wave vectors along the second axis, (n,).
        scale: factor of the operator.
        shift: constant term of the operator.
        power: exponent of the operator.

    Returns:
        Eigenvalues, (n,).
    """
    squared = 4.0 * np.pi**2 * (k0**2 + k1**2).astype(np.float64)
    values: NDArray[np.float64] = scale * np.power(squared + shift, -power)
    return values


def gaussian_random_field(
    seed: float, points: int, scale: float = 7.0**1.5, shift: float = 49.0, power: float = 2.5
) -> NDArray[np.float64]:
    """Draw a field from N(0, scale (-∇² + shift I)^-power) on the unit torus, with zero mean.

    The defaults give the initial vorticity of Li et al. 2021, Fourier Neural Operator, section 5.3 (appendix A.3.3).

    For the wave vectors k of `wave_vectors(points)`, in their order, `default_rng(int(seed)).standard_normal((n, 2))`
    gives a and b, and w(x) = Σ sqrt(2 λ(k)) (a cos 2πk·x + b sin 2πk·x) with λ from `gaussian_spectrum`. The variance
    at any point is therefore the sum of λ over all k except 0, and a finer grid adds small scales to the same field.

    Args:
        seed: a whole number, 0 <= seed < 2**32.
        points: number N of grid points along each side; x = (i, j) / N.
        scale: factor of the covariance operator.
        shift: constant term of the covariance operator.
        power: exponent of the covariance operator.

    Returns:
        The field, (points, points), float64.

    Raises:
        ValueError: the seed is invalid, or there are fewer than 3 points.
    """
    if points < 3:
        raise ValueError(f"points = {points}: a random field needs a grid of at least 3 points along each side")
    k0, k1 = wave_vectors(points)
    a, b = seeded_generator(seed).standard_normal((k0.size, 2)).T
    amplitude = np.sqrt(2.0 * gaussian_spectrum(k0, k1, scale, shift, power))
    spectrum = np.zeros((points, points // 2 + 1), dtype=np.complex128)
    spectrum[k0, k1] = 0.5 * points**2 * amplitude * (a - 1j * b)
    on_axis = k1 == 0  # where the half spectrum contains both k and -k
    spectrum[-k0[on_axis], 0] = spectrum[k0[on_axis], 0].conj()
    field: NDArray[np.float64] = irfft2(spectrum, s=(points, points), workers=1)
    return field
