"""Memory for batches that serves again: new memory costs more than the copy into it, as the system clears each page."""

from __future__ import annotations

import math
import sys
import threading

import numpy as np
from numpy.typing import NDArray

KEPT = 3  # arrays: one that is trained on, one that waits, one that is filled
_NOWHERE_ELSE = 3  # references to a kept array that nobody uses: the list, the loop's variable, getrefcount's argument


class ReusedMemory:
    """Arrays of float32 that are given out again once nothing refers to them, nor to views or tensors of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: list[NDArray[np.float32]] = []

    def array(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return an array, not initialised; any thread may ask.

        Args:
            shape: its shape.
        """
        size = math.prod(shape)
        with self._lock:
            for position, array in enumerate(self._kept):
                if sys.getrefcount(array) <= _NOWHERE_ELSE:
                    if array.size >= size:
                        return array[:size].reshape(shape)
                    del self._kept[position]  # too small for the batches of today
                    break
            array = np.empty(size, np.float32)
            if len(self._kept) < KEPT:
                self._kept.append(array)
            return array.reshape(shape)
