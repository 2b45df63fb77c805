"""The heat equation at a pace: a study of it lasts long enough for faults to meet it in the middle."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from penstock_solvers.problems.heat2d import Heat2D


class PacedHeat(Heat2D):
    """`Heat2D` that takes `pause` seconds more a time step.

    diverges_above: initial temperature above which the fields become NaN half-way, as those of a solver whose time step is too large.
    """

    def __init__(self, pause: float = 0.01, diverges_above: float = np.inf, **options: float) -> None:
        super().__init__(**{name: int(value) if name != "dt" else value for name, value in options.items()})
        self.pause, self.diverges_above = pause, diverges_above

    def run(self, parameters: Mapping[str, float]) -> Iterator[tuple[float, dict[str, NDArray[np.float32]]]]:
        for step, (at, fields) in enumerate(super().run(parameters)):
            time.sleep(self.pause)
            if parameters["initial"] > self.diverges_above and step >= self.steps // 2:
                fields["T"][0, 0] = np.nan
            yield at, fields
