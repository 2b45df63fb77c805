"""Mean, variance and range of columns of numbers that come block by block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock_server.native import Moments, moments

Array = NDArray[np.float64]


@dataclass
class Welford(Moments):
    """Running statistics of several columns, in float64.

    Its attributes are those of `Moments`; `merge` takes in the statistics of further rows.
    """

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
        self.merge(moments(rows))

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
