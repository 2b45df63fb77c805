"""The samples of a buffer as they were at one moment, read in chunks while the buffer is used further."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock_server.buffer.storage import Floats, Indices, SampleStorage

CHUNK_BYTES = 8 * 2**20
"""Bytes copied at a time, with the buffer locked: a few milliseconds."""


class BufferSnapshot:
    """Copy on eviction: samples evicted before they have been read are copied; others are read from the storage.

    This takes memory for one chunk and for the samples evicted meanwhile, instead of a second buffer.

    Args:
        lock: lock of the buffer; the caller of the constructor holds it.
        storage: storage of the buffer.
        slots: slots of the samples, (n,); rows of the snapshot are in this order.
        on_lock_held: called, with the lock held, with the seconds for which each chunk held the lock.
    """

    def __init__(
        self, lock: threading.Lock, storage: SampleStorage, slots: Indices, on_lock_held: Callable[[float], None]
    ) -> None:
        self._lock, self._on_lock_held = lock, on_lock_held
        self._slots = slots
        self._row: Indices = np.full(storage.slots, -1, dtype=np.int64)  # slot -> row; -1 once the sample is evicted
        self._row[slots] = np.arange(len(slots))
        self._evicted: dict[int, tuple[Floats, Floats]] = {}  # row -> inputs, targets of evicted samples
        self._storage = storage
        self._read = [0, 0]  # number of rows of inputs and of targets that have been read

    @property
    def inputs(self) -> SnapshotRows:
        """Inputs (n, window, n_inputs)."""
        return SnapshotRows(self, 0)

    @property
    def targets(self) -> SnapshotRows:
        """Targets (n, window, width)."""
        return SnapshotRows(self, 1)

    def preserve(self, slot: int) -> None:
        """Copy the sample of a slot that is about to be overwritten, if still needed; the caller holds the lock."""
        row = int(self._row[slot])
        if row >= min(self._read):
            inputs, targets = (self._storage.read(which, np.array([slot])) for which in (0, 1))
            self._evicted[row] = (inputs[0], targets[0])
        self._row[slot] = -1

    def shape(self, which: int) -> tuple[int, ...]:
        """Return the shape of inputs (0) or targets (1)."""
        array = (self._storage.inputs, self._storage.targets)[which]
        return (len(self._slots), *array.shape[1:])

    def chunks(self, which: int) -> Iterator[Floats]:
        """Read the rows of inputs (0) or targets (1), once.

        Args:
            which: 0 for inputs, 1 for targets.

        Yields:
            Chunks along the first axis, in order.

        Raises:
            RuntimeError: they have been read before; copies of evicted samples are freed once read.
        """
        if self._read[which]:
            raise RuntimeError("a snapshot can be read once; take another one")
        rows = max(1, CHUNK_BYTES // max(1, 4 * math.prod(self.shape(which)[1:])))
        for begin in range(0, len(self._slots), rows):
            end = min(begin + rows, len(self._slots))
            with self._lock:
                since = time.monotonic()
                chunk = self._storage.read(which, self._slots[begin:end])
                for row in [row for row in self._evicted if begin <= row < end]:
                    chunk[row - begin] = self._evicted[row][which]
                self._read[which] = end
                for row in [row for row in self._evicted if row < min(self._read)]:
                    del self._evicted[row]
                self._on_lock_held(time.monotonic() - since)
            yield chunk


class SnapshotRows:
    """Inputs or targets of a snapshot; `checkpoint.Rows`. `np.asarray` of it reads all rows into memory.

    Args:
        snapshot: the snapshot.
        which: 0 for inputs, 1 for targets.
    """

    def __init__(self, snapshot: BufferSnapshot, which: int) -> None:
        self._snapshot, self._which = snapshot, which

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all rows together."""
        return self._snapshot.shape(self._which)

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32."""
        return np.dtype(np.float32)

    def chunks(self) -> Iterator[Floats]:
        """Read the rows once, in chunks along the first axis."""
        return self._snapshot.chunks(self._which)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        out = np.empty(self.shape, dtype=self.dtype)
        begin = 0
        for chunk in self.chunks():
            out[begin : begin + len(chunk)] = chunk
            begin += len(chunk)
        return out
