"""Puts pieces together to time steps, and time steps to windows."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock_client.errors import Refused
from penstock_client.reasons import Reason
from penstock_client.wire import Header

MAX_STRETCHES = 2**16  # of one time step; even a mesh on that many solver ranks arrives in fewer

Floats = NDArray[np.float32]


class Stretches:
    """The elements of a row that have come, as disjoint stretches in rising order; adjacent ones are merged."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def __len__(self) -> int:
        """Return the number of stretches."""
        return len(self._starts)

    def add(self, start: int, end: int) -> bool:
        """Note the elements from `start` up to `end`; return False when all of them have arrived already.

        Args:
            start: first element.
            end: one past the last element.

        Raises:
            Refused: some of them have arrived already, which would leave a gap elsewhere uncounted, or there are too
                many gaps.
        """
        after = bisect_right(self._starts, start)  # stretches before this one start at `start` or sooner
        if after and self._ends[after - 1] >= end:
            return False
        if (after and self._ends[after - 1] > start) or (after < len(self._starts) and self._starts[after] < end):
            raise Refused(
                Reason.SIZE,
                f"piece of {end - start} elements overlaps one that has arrived already: send each element once",
            )
        if len(self._starts) >= MAX_STRETCHES:
            raise Refused(
                Reason.SIZE, f"more than {MAX_STRETCHES} gaps in one time step: send pieces in order, or larger ones"
            )
        left = after > 0 and self._ends[after - 1] == start
        right = after < len(self._starts) and self._starts[after] == end
        if left and right:
            self._ends[after - 1] = self._ends.pop(after)
            del self._starts[after]
        elif left:
            self._ends[after - 1] = end
        elif right:
            self._starts[after] = start
        else:
            self._starts.insert(after, start)
            self._ends.insert(after, end)
        return True


class PartialStep:
    """One time step of which pieces are still missing.

    The time step is put together in the arrays given: the memory of a slot if a time step is a sample by itself.

    Args:
        inputs: shape (n_inputs,), float32.
        targets: shape (width,), float32.
        held: bytes that are counted for it; see `Holdings`.

    Attributes:
        inputs: as given.
        targets: as given.
        stretches: number of disjoint stretches of elements that have come.
        held: as given; grows with the stretches.
    """

    def __init__(self, inputs: Floats, targets: Floats, held: int = 0) -> None:
        self.stretches = 0
        self.held = held
        self.inputs = inputs
        self.targets = targets
        self._missing = targets.size
        self._come = Stretches()
        self._listed: dict[tuple[int, int], Stretches] = {}  # by field and solver rank, of the rank's own list

    @property
    def whole(self) -> bool:
        """True when no piece is missing."""
        return self._missing == 0

    def add(self, start: int, values: NDArray) -> bool:  # type: ignore[type-arg]
        """Put a piece at its columns; return False if all its values had already arrived.

        Args:
            start: first column.
            values: shape (n,).

        Raises:
            Refused: a part of it has arrived already.
        """
        end = start + values.size
        if not self._note(self._come, start, end):
            return False
        self.targets[start:end] = values
        self._missing -= values.size
        return True

    def scatter(self, columns: slice, points: NDArray[np.int64], values: NDArray, header: Header) -> bool:  # type: ignore[type-arg]
        """Put a piece of a solver rank that has sent an index list; return False if all its values had already arrived.

        Lists of different ranks have no point in common, so that only the rank's own pieces can overlap.

        Args:
            columns: of the field.
            points: indices of the points within the field, shape (n,).
            values: all components of these points, shape (n * components,).
            header: of the piece.

        Raises:
            Refused: a part of it has arrived already.
        """
        come = self._listed.setdefault((header.field, header.rank), Stretches())
        if not self._note(come, header.offset, header.offset + header.count):
            return False
        rows = values.reshape(points.size, -1)
        self.targets[columns].reshape(-1, rows.shape[1])[points] = rows
        self._missing -= values.size
        return True

    def _note(self, come: Stretches, start: int, end: int) -> bool:
        before = len(come)
        new = come.add(start, end)
        self.stretches += len(come) - before
        return new


@dataclass(frozen=True)
class Window:
    """A whole window.

    Attributes:
        index: number of the window within the simulation.
        inputs: one array of shape (n_inputs,) for each time step.
        targets: one array of shape (width,) for each time step.
    """

    index: int
    inputs: list[Floats]
    targets: list[Floats]


class WindowBuilder:
    """Turns one simulation's consecutive time steps into overlapping windows.

    Window i holds the time steps i * stride to i * stride + window - 1. A gap starts a new row of windows. Each attempt
    has a builder of its own, so that a time step back is one that was sent twice; it is left out.

    Args:
        window: time steps in a window.
        stride: time steps between the beginnings of two windows.
    """

    def __init__(self, window: int, stride: int) -> None:
        self._window = window
        self._stride = stride
        self._steps: deque[tuple[Floats, Floats]] = deque(maxlen=window)
        self._next = 0

    def passed(self, step: int) -> bool:
        """Return whether this time step or a later one has been added."""
        return step < self._next

    def add(self, step: int, inputs: Floats, targets: Floats) -> Iterator[Window]:
        """Add a whole time step.

        Args:
            step: number of the time step.
            inputs: shape (n_inputs,).
            targets: shape (width,).

        Yields:
            The window that it completes, if any.
        """
        if self.passed(step):
            return
        if step > self._next:
            self._steps.clear()
        self._next = step + 1
        self._steps.append((inputs, targets))
        first = step - self._window + 1
        if len(self._steps) == self._window and first % self._stride == 0:
            yield Window(first // self._stride, [s[0] for s in self._steps], [s[1] for s in self._steps])


def uncounted(sample: int, window: int, stride: int, arrived: Callable[[int], bool]) -> slice | list[int]:
    """Return which time steps of a sample are in no sample that has arrived before.

    Args:
        sample: its number within the simulation.
        window: time steps of a sample.
        stride: time steps between the starts of two samples.
        arrived: whether another sample of the simulation, by its number, has arrived.
    """
    if window <= stride:  # samples do not overlap
        return slice(None)
    reach = (window - 1) // stride
    new = set(range(window))
    for other in range(max(0, sample - reach), sample + reach + 1):
        if other != sample and arrived(other):
            new -= set(range((other - sample) * stride, (other - sample) * stride + window))
    return sorted(new)
