"""One pass over arriving values, and over those of a batch; in C where it was built.

The C library is made when penstock is installed, if there is a compiler. Without it numpy does the same, more slowly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock_server.native import library, plain
from penstock_server.native.statistics import Moments

__all__ = ["Moments", "describe", "moments", "normalise", "take"]

_KERNEL, _DESCRIPTION = library.load()
_FUNCTIONS = _KERNEL or plain
_DTYPES = ("<f4", "<f8", "<i4", "<i8")
_FLOAT32, _INT64 = np.dtype(np.float32), np.dtype(np.int64)


def describe() -> str:
    """Return which of the two is in use, for a log."""
    return _DESCRIPTION


def take(
    source: NDArray[Any],
    destination: NDArray[np.float32],
    rows: NDArray[np.int64],
    column: int = 0,
    components: int = 1,
    reference: float = 0.0,
) -> tuple[Moments, int]:
    """Copy values into rows of float32, and compute the statistics of the copy.

    Only the copy is judged: the source may be memory that another process changes meanwhile.

    Args:
        source: shape (n, size), float32, float64, int32 or int64, C-contiguous, at any address; of all components at
            one point after the other.
        destination: shape (slots, width), float32, C-contiguous; not in the source's memory.
        rows: its row for each row of the source, shape (n,), int64.
        column: first column of the values in the destination.
        components: number of elements at each point.
        reference: subtracted in float64 before a value becomes float32.

    Returns:
        The statistics of each component over all points, and the flat index in the source of the first value that is
        not finite as float32, or -1. If there is one, the statistics are of no rows, and what the rows hold is not
        specified from this value on.

    Raises:
        IndexError: the destination does not have a row or the columns. Nothing has been written.
        ValueError: a shape, a dtype or a layout is not as above. Nothing has been written.
    """
    if not (source.ndim == 2 and source.flags.c_contiguous and source.dtype.str in _DTYPES):
        raise ValueError(
            f"source {_shown(source)}: expected C-contiguous (n, size) of float32, float64, int32 or int64"
        )
    if not (destination.ndim == 2 and destination.flags.carray and destination.dtype == _FLOAT32):
        raise ValueError(
            f"destination {_shown(destination)}: expected writable, C-contiguous (slots, width) of float32"
        )
    if not (rows.shape == (len(source),) and rows.flags.c_contiguous and rows.flags.aligned and rows.dtype == _INT64):
        raise ValueError(f"rows {_shown(rows)}: expected contiguous ({len(source)},) of int64")
    size = source.shape[1]
    if components < 1 or size % components:
        raise ValueError(f"{size} values at {components} components: expected whole points")
    if column < 0 or column + size > destination.shape[1]:
        raise IndexError(f"columns {column} to {column + size} of a destination of {destination.shape[1]} columns")
    return _FUNCTIONS.take(source, destination, rows, column, components, reference)


def moments(values: NDArray[np.floating[Any]]) -> Moments:
    """Return the statistics of each column.

    Args:
        values: shape (n, columns), any float dtype; n may be 0.
    """
    return _FUNCTIONS.moments(values)


def normalise(
    raw: NDArray[np.float32], mean: NDArray[np.float32], deviation: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    """Write (raw - mean) / deviation, computed in float32, in one pass.

    Args:
        raw: shape (n, width), float32, C-contiguous like all.
        mean: shape (width,).
        deviation: shape (width,).
        out: shape (n, width), not in the memory of the others.

    Raises:
        ValueError: a shape, a dtype or a layout is not as above. Nothing has been written.
    """
    width = raw.shape[-1]
    for array, shape in ((raw, (len(raw), width)), (mean, (width,)), (deviation, (width,)), (out, raw.shape)):
        if array.shape != shape or array.dtype != _FLOAT32 or not (array.flags.c_contiguous and array.flags.aligned):
            raise ValueError(f"{_shown(array)}: expected C-contiguous {shape} of float32")
    _FUNCTIONS.normalise(raw, mean, deviation, out)


def _shown(array: NDArray[Any]) -> str:
    return f"{array.shape} of {array.dtype}"
