"""Pieces to time steps to samples."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock_client.errors import Refused
from penstock_client.reasons import Reason
from penstock_client.wire import Header
from penstock_server.partition import Where

Floats = NDArray[np.float32]


class PartialStep:
    """One time step of which pieces are still missing.

    Args:
        inputs: (n_inputs,) float32, and targets: (width,) float32: where the time step is put together; a slot's own memory where
            a time step is a sample.
    """

    def __init__(self, inputs: Floats, targets: Floats) -> None:
        self.inputs = inputs
        self.targets = targets
        self._missing = targets.size
        self._pieces: set[tuple[int, int, int, int]] = set()
        self._filled: NDArray[np.bool_] | None = None  # elements; made only once a field comes in more than one piece

    @property
    def whole(self) -> bool:
        return self._missing == 0

    def add(self, columns: slice, where: Where, values: NDArray, header: Header) -> bool:  # type: ignore[type-arg]
        """Put a piece into the field that lies at `columns`; False when that very piece has come before.

        where: of the field's elements, or, as an array, of its points; the values are whole points then.

        Raises:
            Refused: it overlaps another piece.
        """
        piece = (header.field, header.rank, header.offset, header.count)
        if piece in self._pieces:
            return False
        field = self.targets[columns]
        if isinstance(where, slice):
            target, filled = field[where], self._filled_of(columns, values.size)[where]
            if filled.any():
                raise self._overlap(header)
            target[:], filled[:] = values, True
        else:
            rows = values.reshape(where.size, -1)
            target = field.reshape(-1, rows.shape[1])
            filled = self._filled_of(columns, values.size).reshape(target.shape)
            if filled[where].any():
                raise self._overlap(header)
            target[where], filled[where] = rows, True
        self._pieces.add(piece)
        self._missing -= values.size
        return True

    def _filled_of(self, columns: slice, size: int) -> NDArray[np.bool_]:
        """Which elements of a field have come."""
        if self._filled is None:
            if size == self.targets.size:
                return np.zeros(size, np.bool_)  # the one piece of the one field: nothing to remember
            self._filled = np.zeros(self.targets.size, np.bool_)
        return self._filled[columns]

    @staticmethod
    def _overlap(header: Header) -> Refused:
        return Refused(
            Reason.SIZE,
            f"piece of solver rank {header.rank}, {header.count} elements from {header.offset} of field id {header.field} at time "
            f"step {header.step}, overlaps another piece: each element belongs to one rank (give each its own offset or indices)",
        )


@dataclass(frozen=True)
class Window:
    """A whole window: its index within the simulation, inputs (window, n_inputs), targets (window, width)."""

    index: int
    inputs: list[Floats]
    targets: list[Floats]


class WindowBuilder:
    """Turns one simulation's consecutive time steps into overlapping windows.

    Window i holds the time steps i*stride ... i*stride + window - 1. A gap or a step back (a new attempt) starts anew.
    """

    def __init__(self, window: int, stride: int) -> None:
        self._window = window
        self._stride = stride
        self._steps: deque[tuple[Floats, Floats]] = deque(maxlen=window)
        self._next = 0

    def add(self, step: int, inputs: Floats, targets: Floats) -> Iterator[Window]:
        """Add a whole time step; yields the window it completes, if any."""
        if step != self._next:
            self._steps.clear()
        self._next = step + 1
        self._steps.append((inputs, targets))
        first = step - self._window + 1
        if len(self._steps) == self._window and first % self._stride == 0:
            yield Window(first // self._stride, [s[0] for s in self._steps], [s[1] for s in self._steps])


def windows_in(steps: int, window: int, stride: int) -> int:
    """How many samples a simulation of `steps` time steps makes."""
    return max(0, (steps - window) // stride + 1)
