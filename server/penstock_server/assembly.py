"""Pieces to time steps to samples."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
        self._pieces: set[int] = set()

    @property
    def whole(self) -> bool:
        return self._missing == 0

    def add(self, start: int, values: NDArray) -> bool:  # type: ignore[type-arg]
        """Put a piece at column `start`; False when that piece has come before."""
        if start in self._pieces:
            return False
        self._pieces.add(start)
        self.targets[start : start + values.size] = values
        self._missing -= values.size
        return True


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
