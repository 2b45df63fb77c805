"""The points of each field that each solver rank of a simulation holds, as its index lists (INDICES) say."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from penstock_client.errors import Refused
from penstock_client.reasons import Reason
from penstock_client.wire import NUMPY_DTYPES, Dtype, Header

INDEX_DTYPES = (Dtype.INT32, Dtype.INT64)

Where = slice | NDArray[np.int64]
"""Of one field: elements from-to, or points one by one."""


@dataclass
class Partition:
    """The index lists of one attempt at a simulation; no point of a field belongs to two solver ranks."""

    _lists: dict[tuple[int, int], NDArray[np.int64]] = field(default_factory=dict)  # by field id and solver rank
    _claimed: dict[int, NDArray[np.bool_]] = field(default_factory=dict)  # (points,) by field id
    _unlisted: set[int] = field(default_factory=set)  # fields of which pieces have come at offsets of the whole

    def claim(self, header: Header, payload: bytes | memoryview, points: int, name: str) -> None:
        """Take the list of the points of a field that a solver rank holds; the same list may come again.

        Args:
            header: of INDICES.
            payload: the indices.
            points: number of points of the field.
            name: of the field, for messages.

        Raises:
            Refused: not so many integers of 4 or 8 bytes; a point outside the field, listed twice or held by another
                rank; another list than before; after pieces of the field without a list.
        """
        rank, key = header.rank, (header.field, header.rank)
        if header.dtype not in INDEX_DTYPES:
            raise Refused(Reason.DTYPE, f"index list of {header.dtype.name.lower()}, expected int32 or int64")
        dtype = NUMPY_DTYPES[header.dtype]
        if len(payload) != header.count * dtype.itemsize or not 1 <= header.count <= points:
            raise Refused(
                Reason.SIZE,
                f"index list of {header.count} points in {len(payload)} bytes: field {name} has {points} "
                "points, an index "
                f"{dtype.itemsize} bytes",
            )
        indices = np.frombuffer(payload, dtype).astype(np.int64)
        before = self._lists.get(key)
        if before is not None:
            if np.array_equal(before, indices):
                return
            raise Refused(Reason.SIZE, f"solver rank {rank} sent another index list of field {name} before")
        if header.field in self._unlisted:
            raise Refused(
                Reason.SIZE,
                f"index list of field {name} after pieces at offsets of the whole field: lists come first",
            )
        outside = indices[(indices < 0) | (indices >= points)]
        if outside.size:
            raise Refused(
                Reason.SIZE,
                f"index list of solver rank {rank} has point {outside[0]}: field {name} has 0 to {points - 1}",
            )
        claimed = self._claimed.get(header.field)
        taken = indices[:0] if claimed is None else indices[claimed[indices]]
        if taken.size:
            raise Refused(Reason.SIZE, f"point {taken[0]} of field {name} is held by solver rank {rank} and by another")
        held = np.zeros(points, np.bool_)
        held[indices] = True
        if np.count_nonzero(held) != indices.size:
            raise Refused(Reason.SIZE, f"index list of solver rank {rank} names a point of field {name} twice")
        self._claimed[header.field] = held if claimed is None else claimed | held
        self._lists[key] = indices

    @property
    def listed(self) -> bool:
        """True once a solver rank has sent a list."""
        return bool(self._lists)

    def has_list(self, header: Header) -> bool:
        """Return whether a solver rank has sent a list of a field."""
        return (header.field, header.rank) in self._lists

    def place(self, header: Header, components: int, name: str) -> Where:
        """Return which elements or points of its field a piece holds.

        Offset and count are those of the sender's own list if it has sent one.

        Args:
            header: of the piece.
            components: elements of the field at each of its points.
            name: of the field, for messages.

        Raises:
            Refused: beyond the end of that list, or not whole points of it; without a list where another rank has sent
                one.
        """
        indices = self._lists.get((header.field, header.rank))
        if indices is None:
            if header.field in self._claimed:
                raise Refused(
                    Reason.SIZE,
                    f"piece of field {name} by solver rank {header.rank}, which has sent no index list, "
                    "while others have",
                )
            self._unlisted.add(header.field)
            return slice(header.offset, header.offset + header.count)
        if (
            header.offset % components
            or header.count % components
            or header.offset + header.count > indices.size * components
        ):
            raise Refused(
                Reason.SIZE,
                f"piece of {header.count} elements from {header.offset}: solver rank {header.rank} holds "
                f"{indices.size} points of "
                f"field {name}, of {components} elements each",
            )
        return indices[header.offset // components : (header.offset + header.count) // components]
