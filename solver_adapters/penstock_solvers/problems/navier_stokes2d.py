"""Forced incompressible flow on the unit torus in vorticity form, from a random initial vorticity.

∂w/∂t + u·∇w = ν ∇²w + f on (0, 1)², f = A (sin 2π(x + y) + cos 2π(x + y)): Li et al. 2021, Fourier Neural Operator,
section 5.3 and appendix A.3.3. Pseudo-spectral with the 2/3 rule; exact in time for viscosity, of fourth order for
advection (ETDRK4).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2, rfft2

from penstock_client import Field
from penstock_solvers.problems.exponential_runge_kutta import ExponentialRungeKutta, Modes
from penstock_solvers.problems.known_parameters import KnownParameters
from penstock_solvers.problems.random_fields import gaussian_random_field

COURANT = 1.5  # largest step times advection's largest frequency; the scheme is stable up to 2.8


class NavierStokes2D:
    """Streams `vorticity` (points, points), float32: the state at time `begin` and after each `interval`.

    Parameters of a simulation: `initial`, the seed of the initial vorticity; optionally `viscosity` and `forcing` (A
        above).

    Args:
        points: number N of grid points along each side, (x, y) = (i, j) / N with x along the first axis; wave numbers
            below N/3 are kept.
        steps: number of streamed time steps of one simulation, including the first one.
        interval: time between two streamed time steps.
        begin: time of the first streamed time step; 0 is the initial condition.
        dt: largest internal time step, in addition to the CFL condition; None: the CFL condition alone.
        viscosity: ν, unless it is a parameter.
        forcing: A, unless it is a parameter.
        initial_scale: factor on the initial vorticity. With 1, its covariance is 7^{3/2} (-∇² + 49 I)^{-2.5}, as
            printed in the paper, and its standard deviation about 0.04. The paper's published generator has 7³ in place
            of 7^{3/2}, which is a factor of 7^{3/4} = 4.304.

    Attributes:
        fields: the streamed field.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(
        self,
        points: int = 64,
        steps: int = 50,
        interval: float = 1.0,
        begin: float = 0.0,
        dt: float | None = None,
        viscosity: float = 1e-3,
        forcing: float = 0.1,
        initial_scale: float = 1.0,
    ) -> None:
        if points < 6:
            raise ValueError(f"points = {points}: expected at least 6, so that the 2/3 rule keeps a wave number")
        if steps < 1:
            raise ValueError(f"steps = {steps}: expected at least 1, the initial condition")
        if interval <= 0 or (dt is not None and dt <= 0):
            raise ValueError(f"interval = {interval}, dt = {dt}: expected times above 0")
        if begin < 0:
            raise ValueError(f"begin = {begin}: expected 0 or more")
        self.points, self.steps, self.interval, self.begin = points, steps, interval, begin
        self.dt = math.inf if dt is None else dt
        self.initial_scale = initial_scale
        self.fields = {"vorticity": Field(shape=(points, points), dtype="float32")}
        self._known = KnownParameters("navier_stokes2d", ("initial",), {"viscosity": viscosity, "forcing": forcing})

        k0 = np.fft.fftfreq(points, 1 / points)[:, None]
        k1 = np.fft.rfftfreq(points, 1 / points)[None, :]
        highest = (points - 1) // 3
        self._kept = (np.abs(k0) <= highest) & (k1 <= highest)
        x, y = 2 * np.pi * k0, 2 * np.pi * k1
        self._laplacian = -(x**2 + y**2)
        inverse = np.where(self._laplacian == 0, 0.0, -1.0 / np.where(self._laplacian == 0, 1.0, self._laplacian))
        self._velocity = np.stack([1j * y * inverse, -1j * x * inverse])  # u = ∂ψ/∂y, v = -∂ψ/∂x, -∇²ψ = w
        self._cross = self._kept * (x**2 - y**2)
        self._square = self._kept * x * y
        self._highest = 2 * np.pi * highest

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
            ValueError: a parameter is unknown or missing, the seed is invalid, or the viscosity is negative.
            FloatingPointError: the solution blows up.
        """
        given = self._known.given(parameters)
        initial = self.initial_scale * gaussian_random_field(given["initial"], self.points)
        for time, vorticity in self.integrate(initial, given["viscosity"], given["forcing"]):
            yield time, {"vorticity": vorticity.astype(np.float32)}

    def integrate(
        self, initial: NDArray[np.float64], viscosity: float, forcing: float
    ) -> Iterator[tuple[float, NDArray[np.float64]]]:
        """Integrate a given initial vorticity in double precision.

        The wave numbers that the 2/3 rule does not keep are removed from `initial` before the first time step.

        Args:
            initial: vorticity at time 0, (points, points).
            viscosity: ν, 0 or more.
            forcing: amplitude A of the forcing.

        Yields:
            Time and vorticity (points, points) of each streamed time step.

        Raises:
            ValueError: the viscosity is negative.
            FloatingPointError: the solution blows up.
        """
        if viscosity < 0:
            raise ValueError(f"viscosity = {viscosity}: expected 0 or more; a negative one lets every flow blow up")
        n = self.points
        source = np.zeros((n, n // 2 + 1), dtype=np.complex128)
        source[1, 1] = (
            0.5 * n**2 * forcing * (1 - 1j)
        )  # cos + sin of 2π(x + y); the conjugate mode is in the other half of the spectrum

        def advection_and_forcing(time: float, modes: Modes) -> Modes:  # noqa: ARG001
            u, v = self._velocities(modes)
            products = rfft2(np.stack([u * v, v * v - u * u]), workers=1)
            # Basdevant 1983: u·∇w = (∂xx - ∂yy)(uv) + ∂xy(v² - u²) needs two transforms fewer than u ∂w/∂x + v ∂w/∂y.
            rate: Modes = self._cross * products[0] + self._square * products[1] + source
            return rate

        stepper = ExponentialRungeKutta(viscosity * self._laplacian, advection_and_forcing, self._largest_step)
        modes: Modes = rfft2(initial, workers=1) * self._kept
        if self.begin > 0:
            modes = stepper.advance(0.0, modes, self.begin)
        for step in range(self.steps):
            if step > 0:
                modes = stepper.advance(self.begin + (step - 1) * self.interval, modes, self.interval)
            yield self.begin + step * self.interval, irfft2(modes, s=(n, n), workers=1)

    def _velocities(self, modes: Modes) -> NDArray[np.float64]:
        """Return the velocities along the first and the second axis, (2, points, points)."""
        velocities: NDArray[np.float64] = irfft2(self._velocity * modes, s=(self.points, self.points), workers=1)
        return velocities

    def _largest_step(self, modes: Modes) -> float:
        fastest = float(np.abs(self._velocities(modes)).sum(axis=0).max())
        return min(self.dt, COURANT / (self._highest * fastest)) if fastest > 0 else self.dt
