"""Mesh geometry, which clients send once: put together from pieces of whatever attempt and partition."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from penstock_server.ingest.partition import Where
from penstock_server.study import STATIC_FIELDS


class StaticFields:
    """Puts static fields together, by name.

    Args:
        on_whole: called with the name and values (points, components) of a field, once, when its last piece has come.
    """

    def __init__(self, on_whole: Callable[[str, NDArray[np.float64]], None]) -> None:
        self._on_whole = on_whole
        self._fields: dict[str, tuple[NDArray[np.float64], NDArray[np.bool_]]] = {}  # values, and which have come

    def take(self, name: str, size: int, values: NDArray, where: Where) -> bool:  # type: ignore[type-arg]
        """Take one piece; return False when the field is whole already.

        Args:
            name: of the field.
            size: number of elements of the whole field.
            values: of the piece, shape (n,).
            where: its elements or points within the field.
        """
        whole, come = self._fields.setdefault(name, (np.empty(size, np.float64), np.zeros(size, np.bool_)))
        if come.all():
            return False
        points = (-1, 1) if isinstance(where, slice) else (-1, STATIC_FIELDS[name])
        whole.reshape(points)[where] = values.reshape(points)
        come.reshape(points)[where] = True
        if come.all():
            self._on_whole(name, whole.reshape(-1, STATIC_FIELDS[name]))
        return True
