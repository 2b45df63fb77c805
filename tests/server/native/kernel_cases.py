"""Cases for both forms of the server's kernel. As a program: a library on the command line passes them.

python kernel_cases.py LIBRARY
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np

from penstock_server.native import plain
from penstock_server.native.compiled import Kernel
from penstock_server.native.statistics import Moments

KINDS = ("<f4", "<f8", "<i4", "<i8")
SHAPES = ((1, 1, 1), (5, 3, 3), (1, 9, 9), (7, 60, 6), (3, 254, 2), (2, 4500, 3), (1, 9001, 1), (0, 6, 2), (2, 130, 65))


def some(kind: str, n: int, size: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Values at an odd address, read-only, as a message has them."""
    values = (np.random.default_rng(seed).normal(2e4, 3.0, (n, size)) * (1 if "f" in kind else 1000)).astype(kind)
    message = b"?" + values.tobytes()
    return np.frombuffer(message, kind, offset=1).reshape(n, size)


def expect_equal(one: Moments, other: Moments) -> None:
    """The statistics are the same, up to the order of sums."""
    assert one.count == other.count
    np.testing.assert_allclose(one.mean, other.mean, rtol=1e-13, atol=1e-300)
    np.testing.assert_allclose(one.m2, other.m2, rtol=1e-9, atol=1e-300)
    np.testing.assert_array_equal(one.low, other.low)
    np.testing.assert_array_equal(one.high, other.high)


def expect_same_bits(one: Moments, other: Moments) -> None:
    """The statistics are the same to the last bit."""
    for name in ("count", "mean", "m2", "low", "high"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def check(kernel: Kernel) -> int:
    """Run every case through the kernel and through numpy; return their number."""
    cases = 0
    for kind, (n, size, components), reference in itertools.product(KINDS, SHAPES, (0.0, 1.9e4)):
        values = some(kind, n, size)
        rows = np.random.default_rng(1).permutation(n + 2)[:n].astype(np.int64)
        results = []
        for take, narrow in ((plain.take, False), (kernel.take, False), (kernel.take, True)):
            kernel.narrow(narrow)
            destination = np.full((n + 2, size + 3), 7.0, np.float32)
            statistics, wrong = take(values, destination, rows, 2, components, reference)
            assert wrong == -1
            results.append((statistics, destination))
        kernel.narrow(False)
        for statistics, destination in results[1:]:
            expect_equal(statistics, results[0][0])
            np.testing.assert_array_equal(destination, results[0][1])
        expect_same_bits(results[1][0], results[2][0])
        cases += 1
    for kind, (n, size, components) in itertools.product(KINDS[:2], SHAPES):
        rows_of_points = np.array(some(kind, n, size)).reshape(-1, components)
        expect_equal(kernel.moments(rows_of_points), plain.moments(rows_of_points))
        expect_equal(kernel.moments(rows_of_points[::2]), plain.moments(rows_of_points[::2]))
        cases += 1
    for kind, bad, at in itertools.product(KINDS[:2], (np.nan, np.inf, -np.inf), (0, 17, 5000, 9001)):
        values = np.ones((2, 6000), kind)
        values.reshape(-1)[[at, 11999]] = bad
        for take in (kernel.take, plain.take):
            destination = np.zeros((2, 6000), np.float32)
            assert take(values, destination, np.arange(2), 0, 1, 0.0)[1] == at
        cases += 1
    for n, width in ((0, 5), (1, 1), (64, 254), (3, 4096), (2, 9001)):
        raw, mean, deviation = (np.array(some("<f4", k, width, seed=k)) for k in (n, 1, 2))
        expected, wide, narrow = (np.full((n, width), 7.0, np.float32) for _ in range(3))
        plain.normalise(raw, mean[0], deviation[1], expected)
        kernel.normalise(raw, mean[0], deviation[1], wide)
        kernel.narrow(True)
        kernel.normalise(raw, mean[0], deviation[1], narrow)
        kernel.narrow(False)
        np.testing.assert_array_equal(wide, expected)
        np.testing.assert_array_equal(narrow, expected)
        cases += 1
    return cases


if __name__ == "__main__":
    print(check(Kernel(Path(sys.argv[1]))), "cases")
