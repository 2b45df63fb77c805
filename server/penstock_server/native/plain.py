"""The functions of kernel.c in numpy, for machines without a compiler; `compiled` documents them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock_server.native.statistics import Moments, no_moments

_BLOCK = 1 << 15  # elements at a time: the float64 copy of a block stays in the cache


def take(
    source: NDArray[Any],
    destination: NDArray[np.float32],
    rows: NDArray[np.int64],
    column: int,
    components: int,
    reference: float,
) -> tuple[Moments, int]:
    """Copy values into rows of float32; as `compiled.take`."""
    size = source.shape[1]
    if len(rows) and not (rows.min() >= 0 and rows.max() < len(destination)):
        raise IndexError(f"rows {rows.min()} to {rows.max()} of a destination of {len(destination)} rows")
    statistics = no_moments(components)
    for number, (values, row) in enumerate(zip(source, rows, strict=True)):
        copy = destination[row, column : column + size]
        with np.errstate(over="ignore", invalid="ignore"):  # what does not fit becomes infinite, which is found below
            copy[:] = values.astype(np.float64) - reference if reference else values
        finite = np.isfinite(copy)
        if not finite.all():
            return no_moments(components), number * size + int(np.argmin(finite))
        statistics.merge(moments(copy.reshape(-1, components)))
    return statistics, -1


def moments(values: NDArray[np.floating[Any]]) -> Moments:
    """Return the statistics of rows; as `compiled.moments`."""
    statistics = no_moments(values.shape[1])
    step = max(1, _BLOCK // max(1, values.shape[1]))
    for start in range(0, len(values), step):
        # Transposed: numpy reduces along contiguous memory, ten times faster for the three components of a vector.
        block = np.array(values[start : start + step].T, dtype=np.float64, order="C")
        low, high, mean = block.min(axis=1), block.max(axis=1), block.mean(axis=1)
        block -= mean[:, None]
        statistics.merge(Moments(float(block.shape[1]), mean, np.einsum("cn,cn->c", block, block), low, high))
    return statistics


def normalise(
    raw: NDArray[np.float32], mean: NDArray[np.float32], deviation: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    """Map rows; as `compiled.normalise`."""
    np.subtract(raw, mean, out=out)
    np.divide(out, deviation, out=out)
