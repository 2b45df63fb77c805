"""Whole time steps of a solver without MPI: their layout in a row of bytes, and rows that are sent in one message."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock_client.piece import Field

Array = NDArray[np.generic]

TIME_BYTES = 8  # of a time step in a block after the first
BLOCK = 512 * 1024  # bytes of rows that are held back for one message
SHARED_BLOCK = 2 * 2**20  # likewise, in shared memory


@dataclass(frozen=True)
class RowField:
    """One field of a row.

    Attributes:
        name: of the field.
        dtype: of its elements, little-endian.
        shapes: of arrays that hold the whole field.
    """

    name: str
    dtype: np.dtype[np.generic]
    shapes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class RowLayout:
    """A whole time step as one row of bytes: its moving fields, one behind the other, by rising field id.

    Attributes:
        fields: in this order.
        bytes: length of a row.
    """

    fields: tuple[RowField, ...]
    bytes: int

    @classmethod
    def of(cls, fields: Mapping[str, Field], ids: Mapping[str, int]) -> RowLayout:
        """Return the layout of announced fields.

        Args:
            fields: the fields, by name.
            ids: their ids, as given by ACCEPT.
        """
        moving = sorted((ids[name], name) for name, field in fields.items() if not field.static)
        row, size = [], 0
        for _, name in moving:
            field = fields[name]
            dtype = np.dtype(field.dtype).newbyteorder("<")
            whole = (*field.shape, field.components)
            row.append(RowField(name, dtype, (whole, field.shape) if field.components == 1 else (whole,)))
            size += field.points * field.components * dtype.itemsize
        return cls(tuple(row), size)

    def arrays(self, given: Mapping[str, object]) -> list[Array] | None:
        """Return the arrays of a time step in the row's order; None where one of them must be converted or refused.

        Args:
            given: arrays by field.
        """
        if len(given) != len(self.fields):
            return None
        row = []
        for field in self.fields:
            array = given.get(field.name)
            if (
                not isinstance(array, np.ndarray)
                or array.dtype != field.dtype
                or array.shape not in field.shapes
                or not array.flags.c_contiguous
            ):
                return None
            row.append(array)
        return row


class HeldRows:
    """Rows of consecutive time steps that wait to be sent in one message.

    Attributes:
        first: number of the first time step.
        distance: time steps from one row to the next; 1 while there is only one row.
        time: physical time of the first time step.
        number: number of rows.
    """

    def __init__(self) -> None:
        self._memory = memoryview(bytearray())  # of the present rows
        self._room = 0  # rows that fit in it
        self._end = 0
        self._next = 0
        self._times: list[float] = []  # of all rows but the first
        self.first, self.distance, self.time, self.number = 0, 1, 0.0, 0

    @property
    def full(self) -> bool:
        """True when no row can be added."""
        return self.number == self._room

    def follows(self, step: int) -> bool:
        """Return whether a time step continues the rows, at the same distance."""
        return step == self._next if self.number > 1 else step > self.first

    def begin(self, memory: memoryview, row_bytes: int) -> None:
        """Start anew in other memory.

        Args:
            memory: writable, with room for at least one row.
            row_bytes: length of a row.
        """
        self._memory = memory
        self._room = (len(memory) + TIME_BYTES) // (row_bytes + TIME_BYTES)
        self._end = self.number = 0

    def add(self, step: int, time: float, row: Sequence[Array]) -> None:
        """Copy a time step, for which there must be room, and which must follow if it is not the first.

        Args:
            step: its number.
            time: its physical time.
            row: its arrays, C-contiguous.
        """
        if self.number:
            self.distance = step - self.first if self.number == 1 else self.distance
            self._times.append(time)
        else:
            self.first, self.time = step, time
        self._next = step + self.distance
        self.number += 1
        end = self._end
        for array in row:
            begin, end = end, end + array.nbytes
            self._memory[begin:end] = array.data.cast("B")
        self._end = end

    def take(self) -> memoryview:
        """Return the payload of a BLOCK with these rows, which lies in the memory, and forget both."""
        end = self._end
        if self._times:
            end += TIME_BYTES * len(self._times)
            struct.pack_into(f"<{len(self._times)}d", self._memory, self._end, *self._times)
        payload = self._memory[:end]
        self._times.clear()
        self._memory = memoryview(b"")
        self._end = self.number = 0
        return payload
