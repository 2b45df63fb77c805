"""Memory that is used for one batch after another. New memory costs more than the copy into it: it must be cleared."""

from __future__ import annotations

import math
import threading
import weakref
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

KEPT = 3  # memories: one that is trained on, one that waits, one that is filled


class BatchMemory:
    """Tensors of float32 on the CPU, whose memory is used again once no tensor and no array refers to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Each memory with the array that was last given out of it. A tensor's storage keeps that array, and so does
        # everything that is made from the tensor.
        self._kept: list[tuple[NDArray[np.float32], weakref.ref[NDArray[np.float32]]]] = []

    def tensor(self, shape: tuple[int, ...]) -> Tensor:
        """Return a tensor, not initialised; any thread may ask.

        Args:
            shape: its shape.
        """
        import torch  # imported here: commands that only read a study need no torch

        size = math.prod(shape)
        with self._lock:
            unused = next((i for i, (_, given) in enumerate(self._kept) if given() is None), None)
            memory = np.empty(0, np.float32) if unused is None else self._kept.pop(unused)[0]
            if memory.size < size:
                memory = np.empty(size, np.float32)
            given = memory[:size].reshape(shape)
            if len(self._kept) < KEPT:
                self._kept.append((memory, weakref.ref(given)))
            return torch.from_numpy(given)
