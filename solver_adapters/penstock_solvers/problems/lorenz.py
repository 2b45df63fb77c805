"""The Lorenz system: a problem with very small samples at a high rate.

dx/dt = σ(y - x), dy/dt = x(ρ - z) - y, dz/dt = xy - βz (Lorenz 1963, J. Atmos. Sci. 20, eqs. 25 to 27).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from penstock_client import Field
from penstock_solvers.problems.known_parameters import KnownParameters

LARGEST = float(np.finfo(np.float32).max)


class Lorenz:
    """Streams `state` (3,), float32: the point (x, y, z) at time 0 and after each `interval`.

    Parameters of a simulation: `x0`, `y0`, `z0`, the initial point; optionally `sigma`, `rho`, `beta`.

    Args:
        steps: number of streamed time steps of one simulation, including the initial point.
        interval: time between two streamed time steps.
        substeps: number of steps of the classical fourth-order Runge-Kutta scheme per interval.
        sigma: σ, unless it is a parameter.
        rho: ρ, unless it is a parameter.
        beta: β, unless it is a parameter.

    Attributes:
        fields: the streamed field.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(
        self,
        steps: int = 1000,
        interval: float = 0.01,
        substeps: int = 4,
        sigma: float = 10.0,
        rho: float = 28.0,
        beta: float = 8.0 / 3.0,
    ) -> None:
        if steps < 1 or substeps < 1 or interval <= 0:
            raise ValueError(
                f"steps = {steps}, substeps = {substeps}, interval = {interval}: expected at least 1, 1 and a time "
                "above 0"
            )
        self.steps, self.interval, self.substeps = steps, interval, substeps
        self.fields = {"state": Field(shape=(3,), dtype="float32")}
        self._known = KnownParameters("lorenz", ("x0", "y0", "z0"), {"sigma": sigma, "rho": rho, "beta": beta})

    def check_parameters(self, names: Collection[str]) -> None:
        """Check the names of the study's parameters.

        Args:
            names: names of the parameters.

        Raises:
            ValueError: a parameter is unknown, or a required one is missing.
        """
        self._known.check(names)

    def run(self, parameters: Mapping[str, float]) -> Iterator[tuple[float, dict[str, NDArray[np.float32]]]]:
        """Run one simulation.

        Args:
            parameters: parameter values, by name.

        Yields:
            Time and fields of each streamed time step.

        Raises:
            ValueError: a parameter is unknown or missing.
            FloatingPointError: the state is no longer finite, or too large for float32.
        """
        given = self._known.given(parameters)
        point = (given["x0"], given["y0"], given["z0"])
        for time, state in self.integrate(point, given["sigma"], given["rho"], given["beta"]):
            yield time, {"state": np.array(state, dtype=np.float32)}

    def integrate(
        self, point: tuple[float, float, float], sigma: float, rho: float, beta: float
    ) -> Iterator[tuple[float, tuple[float, float, float]]]:
        """Integrate from a given point in double precision.

        Args:
            point: the initial point (x, y, z).
            sigma: coefficient σ.
            rho: coefficient ρ.
            beta: coefficient β.

        Yields:
            Time and point (x, y, z) of each streamed time step.

        Raises:
            FloatingPointError: the state is no longer finite, or too large for float32.
        """
        # Plain floats are several times faster than arrays of three numbers.
        x, y, z = point
        dt = self.interval / self.substeps
        half, sixth = dt / 2, dt / 6
        for step in range(self.steps):
            for _ in range(self.substeps if step > 0 else 0):
                x1, y1, z1 = sigma * (y - x), x * (rho - z) - y, x * y - beta * z
                a, b, c = x + half * x1, y + half * y1, z + half * z1
                x2, y2, z2 = sigma * (b - a), a * (rho - c) - b, a * b - beta * c
                a, b, c = x + half * x2, y + half * y2, z + half * z2
                x3, y3, z3 = sigma * (b - a), a * (rho - c) - b, a * b - beta * c
                a, b, c = x + dt * x3, y + dt * y3, z + dt * z3
                x4, y4, z4 = sigma * (b - a), a * (rho - c) - b, a * b - beta * c
                x += sixth * (x1 + 2 * (x2 + x3) + x4)
                y += sixth * (y1 + 2 * (y2 + y3) + y4)
                z += sixth * (z1 + 2 * (z2 + z3) + z4)
            if not abs(x) + abs(y) + abs(z) < LARGEST:  # true of NaN too
                raise FloatingPointError(
                    f"the state is {(x, y, z)} at time {step * self.interval:g} with time steps of {dt:g}; "
                    "raise `substeps` in [solver.options]"
                )
            yield step * self.interval, (x, y, z)
