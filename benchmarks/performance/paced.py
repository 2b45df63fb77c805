"""A solver that makes time steps at a given rate and computes nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from penstock_client import Field

ELEMENTS = 10_000  # float32 values of a time step: 40 KB


class Paced:
    """Yields `steps` time steps, `rate` a second.

    Args:
        rate: time steps a second.
        steps: time steps of a simulation.
    """

    def __init__(self, rate: float, steps: int) -> None:
        self._rate, self._steps = float(rate), int(steps)
        self._noise = np.random.default_rng(0).random(2 * ELEMENTS, dtype=np.float32)
        self.fields = {"T": Field((ELEMENTS,), dtype="float32")}

    def run(self, parameters: Mapping[str, float]) -> Iterator[tuple[float, dict[str, NDArray[np.float32]]]]:
        """Yield time and field of each time step when it is due."""
        first = int(parameters["a"] * ELEMENTS)
        begun = time.monotonic()
        for step in range(self._steps):
            time.sleep(max(0.0, begun + step / self._rate - time.monotonic()))
            at = (first + step) % ELEMENTS
            yield step / self._rate, {"T": self._noise[at : at + ELEMENTS]}
