"""Scrambled Sobol points as `scipy.stats.qmc.Sobol` draws them, without importing scipy.stats, which takes over a second.

Sequence: S. Joe and F. Y. Kuo, SIAM J. Sci. Comput. 30 (2008) 2635. Scrambling: J. Matousek, J. Complexity 14 (1998) 527.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BITS = 30  # of a number in scipy.stats.qmc.Sobol
MOST = 1000  # dimensions; for more, scipy's compiled code is faster than its import is slow
Integers = NDArray[np.uint32]


def sobol_points(n: int, log2: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw the first points of a scrambled Sobol sequence.

    Args:
        n: number of dimensions.
        log2: base-2 logarithm of the number of points, at most 30.
        rng: of the scrambling.

    Returns:
        Points (2**log2, n) in the unit cube; the same as `scipy.stats.qmc.Sobol(n, rng=rng).random_base2(log2)`.
    """
    numbers = _direction_numbers(n) if n <= MOST and log2 <= BITS else None
    if numbers is None:
        from scipy.stats import qmc

        return np.asarray(qmc.Sobol(n, rng=rng).random_base2(log2))
    rng = rng.spawn(1)[0]
    powers = 2 ** np.arange(BITS, dtype=np.uint32)
    first = rng.integers(0, 2, size=(n, BITS), dtype=np.uint32) @ powers
    matrices = np.tril(rng.integers(0, 2, size=(n, BITS, BITS), dtype=np.uint32))
    columns = _scrambled(numbers, matrices)
    # Point i + 1 differs from point i by the column of the lowest zero bit of i (Gray code).
    lowest = _lowest_zero_bits(2**log2 - 1)
    steps = np.concatenate([first[None], columns.T[lowest]])
    return np.asarray(np.bitwise_xor.accumulate(steps) * (1.0 / 2**BITS))


def _direction_numbers(n: int) -> Integers | None:
    """Return the direction numbers (n, BITS); None where scipy does not keep their table where it is looked for."""
    scipy = find_spec("scipy")
    path = None if scipy is None or scipy.origin is None else Path(scipy.origin).parent / "stats"
    if path is None or not (path := path / "_sobol_direction_numbers.npz").is_file():
        return None
    with np.load(path, allow_pickle=False) as table:
        if not {"poly", "vinit"} <= set(table.files) or len(table["poly"]) < n:
            return None
        polynomials, first = table["poly"][:n].tolist(), table["vinit"][:n].tolist()
    rows = [[1] * BITS] + [_row(*both) for both in zip(polynomials[1:], first[1:], strict=True)]
    return np.array(rows[:n], dtype=np.uint32) << np.arange(BITS - 1, -1, -1, dtype=np.uint32)


def _row(polynomial: int, first: list[int]) -> list[int]:
    """Continue the initial direction numbers of a dimension by the recurrence of its primitive polynomial."""
    degree = polynomial.bit_length() - 1
    row = first[:degree]
    for j in range(degree, BITS):
        new = row[j - degree]
        for k in range(degree):
            if polynomial >> (degree - 1 - k) & 1:
                new ^= row[j - k - 1] << (k + 1)
        row.append(new)
    return row


def _scrambled(numbers: Integers, matrices: Integers) -> Integers:
    """Multiply the bits of direction numbers (n, BITS), highest first, by unit lower triangular matrices modulo 2."""
    places = np.arange(BITS)
    matrices[:, places, places] = 1
    shifts = (BITS - 1 - places).astype(np.uint32)
    bits = numbers[:, None, :] >> shifts[:, None] & 1  # (n, bit, number)
    return np.asarray(((matrices @ bits & 1) << shifts[:, None]).sum(axis=1, dtype=np.uint32))


def _lowest_zero_bits(number: int) -> NDArray[np.int64]:
    """Return the place of the lowest zero bit of 0, 1, ..., number - 1."""
    counted = np.arange(1, number + 1)
    return np.asarray(np.log2(counted & -counted), dtype=np.int64)
