"""The heat equation at the pace of a larger solver, so that a test can act while a study runs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from penstock_solvers.heat2d import Heat2D


class PacedHeat(Heat2D):
    """`pause`: seconds between two time steps."""

    def __init__(self, pause: float = 0.04, **options: Any) -> None:
        super().__init__(**options)
        self._pause = pause

    def run(self, parameters: Mapping[str, float]) -> Iterator[tuple[float, Mapping[str, Any]]]:
        for time_step in super().run(parameters):
            time.sleep(self._pause)
            yield time_step
