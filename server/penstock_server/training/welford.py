"""Mean, variance and range of columns of numbers that come block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_BLOCK = 1 << 15  # elements at a time: the float64 copy of a block stays in the cache


@dataclass
class Welford:
    """Running statistics of several columns, in float64.

    Blocks of rows are merged by the pairwise update of Chan, Golub and LeVeque 1983, Algorithms for Computing the
    Sample Variance: Analysis and Recommendations.

    Attributes:
        count: number of rows.
        mean: of each column, shape (columns,).
        m2: sum of squared deviations from the mean, shape (columns,).
        low: minimum of each column, shape (columns,); +inf before the first row.
        high: maximum of each column, shape (columns,); -inf before the first row.
    """

    count: float
    mean: Array
    m2: Array
    low: Array
    high: Array

    @classmethod
    def empty(cls, columns: int) -> Welford:
        """Return statistics of no rows of so many columns."""
        infinite = np.full(columns, np.inf)
        return cls(0.0, np.zeros(columns), np.zeros(columns), infinite, -infinite)

    def update(self, rows: NDArray[np.floating[Any]]) -> None:
        """Take in rows.

        Args:
            rows: shape (n, columns), any float dtype; n may be 0.
        """
        for block in self.blocks(rows):
            self.merge(block)

    @staticmethod
    def blocks(rows: NDArray[np.floating[Any]]) -> Iterator[Welford]:
        """Yield the statistics of rows, block by block; merged in this order they are what `update` takes in.

        Args:
            rows: shape (n, columns), any float dtype; n may be 0.
        """
        step = max(1, _BLOCK // max(1, rows.shape[1]))
        for start in range(0, len(rows), step):
            # Transposed: numpy reduces along contiguous memory, ten times faster for the three components of a vector.
            block = np.array(rows[start : start + step].T, dtype=np.float64, order="C")
            low, high, mean = block.min(axis=1), block.max(axis=1), block.mean(axis=1)
            block -= mean[:, None]
            yield Welford(float(block.shape[1]), mean, np.einsum("cn,cn->c", block, block), low, high)

    def merge(self, other: Welford) -> None:
        """Take in all rows that `other` has seen."""
        if other.count == 0:
            return
        total = self.count + other.count
        delta = other.mean - self.mean
        self.mean = self.mean + delta * (other.count / total)
        self.m2 = self.m2 + other.m2 + delta**2 * (self.count * other.count / total)
        self.low, self.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        self.count = total

    @property
    def std(self) -> Array:
        """Population standard deviation of each column (0 before the first row)."""
        return np.sqrt(self.m2 / max(self.count, 1.0))

    def to_array(self) -> Array:
        """Return the statistics as one row of 1 + 4 columns numbers; `from_array` is the inverse."""
        return np.concatenate([[self.count], self.mean, self.m2, self.low, self.high])

    @classmethod
    def from_array(cls, row: Array) -> Welford:
        """Return the statistics that `to_array` put in a row."""
        mean, m2, low, high = np.array(row[1:], dtype=np.float64).reshape(4, -1)
        return cls(float(row[0]), mean, m2, low, high)
