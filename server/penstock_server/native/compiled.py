"""The functions of kernel.c, called through ctypes."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock_server.native import plain
from penstock_server.native.statistics import Moments, no_moments

Floats = NDArray[np.float32]

MOST_COMPONENTS = 64  # as in kernel.c
# A call that takes microseconds keeps the interpreter's lock: whoever gives it up may wait milliseconds to get it back.
_SHORT = 1 << 15  # values
_DTYPES = {"<f4": 0, "<f8": 1, "<i4": 2, "<i8": 3}  # numbers of kernel.c
_TASK = struct.Struct("=qqqqdqqqqqqq")  # struct task of kernel.c
_NO_SUCH_ROW = -2


@dataclass(frozen=True)
class _Functions:
    take: Callable[[bytes], int]
    moments: Callable[[int, int, int, int, int], None]
    normalise: Callable[[int, int, int, int, int, int], None]


class Kernel:
    """The functions of a compiled kernel.c.

    Args:
        path: the library.

    Raises:
        OSError: it cannot be loaded.
        AttributeError: it is another library.
    """

    def __init__(self, path: Path) -> None:
        released, held = ctypes.CDLL(str(path)), ctypes.PyDLL(str(path))
        self._long, self._brief = _bind(released), _bind(held)
        self._library = held
        held.penstock_kernel_source.restype = ctypes.c_char_p

    @property
    def source(self) -> str:
        """Checksum of the source that the library was made from."""
        return bytes(self._library.penstock_kernel_source()).decode()

    def narrow(self, wanted: bool) -> None:
        """Do without registers that not every processor has; the results are the same."""
        self._library.penstock_kernel_narrow(int(wanted))

    def take(
        self,
        source: NDArray[Any],
        destination: NDArray[np.float32],
        rows: NDArray[np.int64],
        column: int,
        components: int,
        reference: float,
    ) -> tuple[Moments, int]:
        """Copy values; see `penstock_server.native.take`, which has checked the arguments."""
        if components > MOST_COMPONENTS:
            return plain.take(source, destination, rows, column, components, reference)
        n, size = source.shape
        out = np.empty((4, components))
        task = _TASK.pack(
            source.ctypes.data,
            _DTYPES[source.dtype.str],
            n,
            size,
            reference,
            destination.ctypes.data,
            len(destination),
            destination.shape[1],
            rows.ctypes.data,
            column,
            components,
            out.ctypes.data,
        )
        wrong = (self._brief if source.size < _SHORT else self._long).take(task)
        if wrong == _NO_SUCH_ROW:
            raise IndexError(f"rows {rows.min()} to {rows.max()} of a destination of {len(destination)} rows")
        if wrong >= 0:
            return no_moments(components), wrong
        return Moments(source.size / components, out[0], out[1], out[2], out[3]), wrong

    def moments(self, values: NDArray[np.floating[Any]]) -> Moments:
        """Return the statistics of rows; see `penstock_server.native.moments`."""
        points, components = values.shape
        kind = values.dtype.str
        if not 0 < components <= MOST_COMPONENTS or kind not in ("<f4", "<f8"):
            return plain.moments(values)
        if not (values.flags.c_contiguous and values.flags.aligned):
            values = np.require(values, requirements=("C", "A"))
        out = np.empty((4, components))
        functions = self._brief if values.size < _SHORT else self._long
        functions.moments(values.ctypes.data, int(kind == "<f8"), points * components, components, out.ctypes.data)
        return Moments(float(points), out[0], out[1], out[2], out[3])

    def normalise(self, raw: Floats, mean: Floats, deviation: Floats, out: Floats) -> None:
        """Map rows; see `penstock_server.native.normalise`, which has checked the arguments."""
        functions = self._brief if raw.size < _SHORT else self._long
        functions.normalise(
            raw.ctypes.data, len(raw), len(mean), mean.ctypes.data, deviation.ctypes.data, out.ctypes.data
        )


def _bind(library: ctypes.CDLL) -> _Functions:
    take, moments = library.penstock_kernel_take, library.penstock_kernel_moments
    take.argtypes, take.restype = [ctypes.c_char_p], ctypes.c_int64
    moments.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
    moments.restype = None
    normalise = library.penstock_kernel_normalise
    normalise.argtypes, normalise.restype = [ctypes.c_void_p, *[ctypes.c_int64] * 2, *[ctypes.c_void_p] * 3], None
    return _Functions(take, moments, normalise)
