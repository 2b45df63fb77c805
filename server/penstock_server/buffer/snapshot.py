"""The samples of a buffer as they were at one moment, read in chunks while the buffer is used further."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock_server.buffer.storage import Floats, Indices, SampleStorage

CHUNK_BYTES = 8 * 2**20
"""Bytes copied at a time."""


class BufferSnapshot:
    """Copy on eviction: samples evicted before they have been read are copied; others are read from the storage.

    This takes memory for one chunk and for the samples evicted meanwhile, instead of a second buffer. Chunks are read
    without the buffer's lock: a sample that is evicted and overwritten meanwhile has been copied first, and its copy
    then takes the place of what was read. The lock is held only to note how far the rows have been read.

    Args:
        lock: lock of the buffer; the caller of the constructor holds it.
        storage: storage of the buffer.
        on_lock_held: called, with the lock held, with the seconds for which it was held at a time.
    """

    def __init__(self, lock: threading.Lock, storage: SampleStorage, on_lock_held: Callable[[float], None]) -> None:
        self._lock, self._on_lock_held = lock, on_lock_held
        self._slots: Indices = np.empty(0, dtype=np.int64)
        self._row: Indices | None = None  # slot -> row, -1 for a slot without; None before `locate`
        self._gone = np.zeros(storage.slots, dtype=bool)  # slot -> whether its sample has been evicted since
        self._evicted: dict[int, tuple[Floats, Floats]] = {}  # slot -> inputs, targets of evicted samples
        self._arrays = (storage.inputs, storage.targets)
        self._read = [0, 0]  # number of rows of inputs and of targets that have been read

    def locate(self, slots: Indices) -> None:
        """Tell the snapshot which samples were held when it was made; without the lock.

        Args:
            slots: slots of the samples, (n,); rows of the snapshot are in this order.
        """
        row: Indices = np.full(len(self._arrays[0]), -1, dtype=np.int64)
        row[slots] = np.arange(len(slots))
        with self._lock:
            since = time.monotonic()
            self._slots, self._row = slots, row
            self._on_lock_held(time.monotonic() - since)

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
        if self._gone[slot]:
            return  # the sample has arrived since
        self._gone[slot] = True
        if self._row is None or self._row[slot] >= min(self._read):
            self._evicted[slot] = (self._arrays[0][slot].copy(), self._arrays[1][slot].copy())

    def shape(self, which: int) -> tuple[int, ...]:
        """Return the shape of inputs (0) or targets (1)."""
        return (len(self._slots), *self._arrays[which].shape[1:])

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
        array = self._arrays[which]
        rows = max(1, CHUNK_BYTES // max(1, array[0].nbytes))
        for begin in range(0, len(self._slots), rows):
            end = min(begin + rows, len(self._slots))
            slots = self._slots[begin:end]
            chunk = array.take(slots, axis=0)
            with self._lock:
                since = time.monotonic()
                self._read[which] = end
                self._on_lock_held(time.monotonic() - since)
            # Without the lock: what has been evicted up to here has its copy; what is evicted later has been read.
            for row in np.flatnonzero(self._gone[slots]).tolist():
                kept = self._evicted.get(int(slots[row]))
                if kept is not None:
                    chunk[row] = kept[which]
                    if min(self._read) >= end:
                        del self._evicted[int(slots[row])]
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
