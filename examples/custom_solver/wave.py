"""A user's own solver, outside the package: a travelling, decaying wave on a ring."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from penstock_client import Field


class TravellingWave:
    """u_t + c u_x = -d u on [0, 1), periodic; first-order upwind, explicit Euler.

    Args:
        points: number of grid points.
        steps: number of time steps sent.
        dt: time between them; each consists of as many upwind steps as stability requires.
    """

    def __init__(self, points: int = 128, steps: int = 40, dt: float = 0.02) -> None:
        self.points, self.steps, self.dt = points, steps, dt
        self.fields = {"u": Field(shape=(points,), dtype="float64")}

    def run(self, parameters: Mapping[str, float]) -> Iterator[tuple[float, dict[str, NDArray[np.float64]]]]:
        """Solve for one point of the parameter space.

        Args:
            parameters: `speed` c and `damping` d.

        Yields:
            Time and fields {"u": (points,)}, at dt, 2 dt, ...
        """
        speed, damping = parameters["speed"], parameters["damping"]
        x = np.arange(self.points) / self.points
        u = np.exp(-100.0 * (x - 0.5) ** 2)
        inner = int(np.ceil(speed * self.dt * self.points / 0.9))
        dt = self.dt / inner
        for step in range(1, self.steps + 1):
            for _ in range(inner):
                u = u - dt * (speed * self.points * (u - np.roll(u, 1)) + damping * u)
            yield step * self.dt, {"u": u}
