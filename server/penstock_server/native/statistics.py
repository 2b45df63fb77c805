"""Statistics of columns of numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass
class Moments:
    """Statistics of several columns, in float64.

    Attributes:
        count: number of rows.
        mean: of each column, shape (columns,).
        m2: sum of squared deviations from the mean, shape (columns,).
        low: minimum of each column, shape (columns,); +inf without rows.
        high: maximum of each column, shape (columns,); -inf without rows.
    """

    count: float
    mean: Array
    m2: Array
    low: Array
    high: Array

    def merge(self, other: Moments) -> None:
        """Take in all rows that `other` has seen.

        The pairwise update of Chan, Golub and LeVeque 1983, Algorithms for Computing the Sample Variance: Analysis and
        Recommendations.
        """
        if other.count == 0:
            return
        total = self.count + other.count
        delta = other.mean - self.mean
        self.mean = self.mean + delta * (other.count / total)
        self.m2 = self.m2 + other.m2 + delta**2 * (self.count * other.count / total)
        self.low, self.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        self.count = total


def no_moments(columns: int) -> Moments:
    """Return the statistics of no rows of so many columns."""
    infinite = np.full(columns, np.inf)
    return Moments(0.0, np.zeros(columns), np.zeros(columns), infinite, -infinite)
