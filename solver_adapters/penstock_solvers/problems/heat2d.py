"""The heat equation on a square plate: the reference solver of the papers, and the example of how to write a solver.

∂u/∂t = D ∇²u on [0, 10]², D = 1, constant temperatures on the four walls, constant initial temperature; N x N interior
points, central differences, implicit Euler. The implicit step is solved directly: the type-I sine transform diagonalises the
Laplacian with Dirichlet walls (Strang 2007, Computational Science and Engineering, section 3.5).
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
    """A solver as Penstock runs it: a constructor with options, `fields`, and `run`.

    Args:
        points: interior points N along each side.
        steps: time steps of one simulation.
        dt: time step.
    """

    def __init__(self, points: int = 100, steps: int = 100, dt: float = 0.01) -> None:
        self.points, self.steps, self.dt = points, steps, dt
        self.fields = {"T": Field(shape=(points, points), dtype="float32")}
        self._known = KnownParameters("heat2d", TEMPERATURES)

    def check_parameters(self, names: Collection[str]) -> None:
        """Raises ValueError for parameters that are unknown or missing."""
        self._known.check(names)

    def run(self, parameters: Mapping[str, float]) -> Iterator[tuple[float, dict[str, NDArray[np.float32]]]]:
        """Yield (time, fields) after each time step.

        Args:
            parameters: temperatures `initial`, `left`, `right` (along the last axis), `bottom`, `top` (along the first).

        Raises:
            ValueError: unknown or missing parameters.
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
