"""The heat equation on a square plate: a reference problem of the literature, and the example of how to write a solver.

∂u/∂t = D ∇²u on [0, 10]² with D = 1, constant temperatures on the four walls and a constant initial temperature. N x N
interior points, central differences, implicit Euler. Each implicit step is solved directly: the type-I sine transform
diagonalises the Laplacian with Dirichlet walls (Strang 2007, Computational Science and Engineering, section 3.5).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dstn, idstn

from penstock_client import Field
from penstock_solvers.problems.known_parameters import KnownParameters

LENGTH = 10.0
DIFFUSIVITY = 1.0
TEMPERATURES = ("initial", "left", "right", "bottom", "top")


class Heat2D:
    """Streams the temperature `T` (points, points), float32.

    A solver consists of a constructor with options, `fields`, and `run`.

    Args:
        points: number N of interior points along each side.
        steps: number of time steps of one simulation.
        dt: size of a time step.

    Attributes:
        fields: the streamed field.
    """

    def __init__(self, points: int = 100, steps: int = 100, dt: float = 0.01) -> None:
        self.points, self.steps, self.dt = points, steps, dt
        self.fields = {"T": Field(shape=(points, points), dtype="float32")}
        self._known = KnownParameters("heat2d", TEMPERATURES)

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
            parameters: temperatures `initial`, `left` and `right` (ends of the last axis), `bottom` and `top` (ends of
                the first axis).

        Yields:
            Time and fields after each time step.

        Raises:
            ValueError: a parameter is unknown or missing.
        """
        given = self._known.given(parameters)
        n, spacing = self.points, LENGTH / (self.points + 1)
        diffusion = DIFFUSIVITY * self.dt / spacing**2
        eigenvalues = 2.0 - 2.0 * np.cos(np.pi * np.arange(1, n + 1) / (n + 1))
        implicit = 1.0 + diffusion * (eigenvalues[:, None] + eigenvalues[None, :])

        walls = np.zeros((n, n))
        walls[:, 0] += given["left"]
        walls[:, -1] += given["right"]
        walls[0, :] += given["bottom"]
        walls[-1, :] += given["top"]

        temperature = np.full((n, n), given["initial"])
        for step in range(1, self.steps + 1):
            temperature = idstn(dstn(temperature + diffusion * walls, type=1) / implicit, type=1)
            yield step * self.dt, {"T": temperature.astype(np.float32)}
