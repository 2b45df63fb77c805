"""A buffer's samples as they were at one moment, to be written in pieces while puts go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock_server.buffer.storage import Floats, Indices, Storage

CHUNK_BYTES = 8 * 2**20  # copied at a time, with the buffer locked: a few milliseconds


class Snapshot:
    """Copy on eviction: a sample that leaves before it has been read is copied first, all others are read where they lie.

    So it takes a piece of CHUNK_BYTES, and what is evicted meanwhile, rather than a second buffer. Rows stand in the order of `slots`.

    Args:
        lock: the buffer's. slots: of the samples, (n,); the caller holds the lock. locked: told, with the lock held, for how many seconds
            a piece has held it.
    """

    def __init__(self, lock: threading.Lock, storage: Storage, slots: Indices, locked: Callable[[float], None]) -> None:
        self._lock, self._locked = lock, locked
        self._slots = slots
        self._row: Indices = np.full(
            storage.slots, -1, dtype=np.int64
        )  # slot -> its row, as long as it holds that sample
        self._row[slots] = np.arange(len(slots))
        self._left: dict[int, tuple[Floats, Floats]] = {}  # row -> inputs, targets of samples that have left
        self._arrays = (storage.inputs, storage.targets)
        self._read = [0, 0]  # rows of each that have been read

    @property
    def inputs(self) -> SnapshotRows:
        return SnapshotRows(self, 0)

    @property
    def targets(self) -> SnapshotRows:
        return SnapshotRows(self, 1)

    def leave(self, slot: int) -> None:
        """The slot is about to be given to another sample; the caller holds the lock."""
        row = int(self._row[slot])
        if row >= min(self._read):
            self._left[row] = (self._arrays[0][slot].copy(), self._arrays[1][slot].copy())
        self._row[slot] = -1

    def shape(self, which: int) -> tuple[int, ...]:
        return (len(self._slots), *self._arrays[which].shape[1:])

    def chunks(self, which: int) -> Iterator[Floats]:
        """The rows of inputs (0) or targets (1), once. RuntimeError the second time: what has left is not kept that long."""
        if self._read[which]:
            raise RuntimeError("a snapshot can be read once; take another one")
        array = self._arrays[which]
        rows = max(1, CHUNK_BYTES // max(1, array[0].nbytes))
        for begin in range(0, len(self._slots), rows):
            end = min(begin + rows, len(self._slots))
            with self._lock:
                since = time.monotonic()
                chunk = array[self._slots[begin:end]]
                for row in [row for row in self._left if begin <= row < end]:
                    chunk[row - begin] = self._left[row][which]
                self._read[which] = end
                for row in [row for row in self._left if row < min(self._read)]:
                    del self._left[row]
                self._locked(time.monotonic() - since)
            yield chunk


class SnapshotRows:
    """One of the two arrays; a `checkpoint.Rows`. `np.asarray` of it gives all rows in memory."""

    def __init__(self, snapshot: Snapshot, which: int) -> None:
        self._snapshot, self._which = snapshot, which

    @property
    def shape(self) -> tuple[int, ...]:
        return self._snapshot.shape(self._which)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32)

    def chunks(self) -> Iterator[Floats]:
        return self._snapshot.chunks(self._which)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        out = np.empty(self.shape, dtype=self.dtype)
        begin = 0
        for chunk in self.chunks():
            out[begin : begin + len(chunk)] = chunk
            begin += len(chunk)
        return out
