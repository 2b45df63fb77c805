"""Advection, diffusion and dispersion on a periodic line: the problems E1, E2, E3 of message-passing PDE solvers.

    ∂u/∂t + ∂/∂x (α u² - β ∂u/∂x + γ ∂²u/∂x²) = δ(t, x) on [0, 16], u(0, x) = δ(0, x),
    δ = Σ_j A_j sin(ω_j t + 2π l_j x/16 + φ_j), j = 1..5

Brandstetter, Worrall, Welling 2022, Message Passing Neural PDE Solvers, section 4.1. Finite volumes: WENO5 for α u²;
diffusion and dispersion are integrated exactly in Fourier space (ETDRK4); δ is averaged exactly over the cells.

α, β, γ are the coefficients of the equation as printed: E1 (1, 0, 0); E2 (1, η, 0) with 0 <= η <= 0.2; E3 with
0 <= α <= 3, 0 <= β <= 0.4, 0 <= γ <= 1. The authors' generator (github.com/brandstetter-johannes/MP-Neural-PDE-Solvers,
generate_data.py) differs from the paper: its flux is α u²/2, so the published E1 and E2 data correspond to α = 0.5
here; its E3 data correspond to α up to 3 here, have β from 0.1, and end at time 2; l is 1 or 2; and all three are
forced.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, rfft

from penstock_client import Field
from penstock_solvers.problems.exponential_runge_kutta import ExponentialRungeKutta, Modes
from penstock_solvers.problems.known_parameters import KnownParameters
from penstock_solvers.problems.random_fields import seeded_generator
from penstock_solvers.problems.weno import quadratic_flux

LENGTH = 16.0
WAVES = 5
COURANT = 0.5  # largest step times the fastest wave, over the cell width


@dataclass(frozen=True)
class Waves:
    """The function Σ A sin(ω t + 2π l x / LENGTH + φ).

    Attributes:
        amplitudes: A, (waves,).
        frequencies: ω, (waves,).
        numbers: l, (waves,).
        phases: φ, (waves,).
    """

    amplitudes: NDArray[np.float64]
    frequencies: NDArray[np.float64]
    numbers: NDArray[np.int64]
    phases: NDArray[np.float64]

    @classmethod
    def drawn(cls, seed: float, highest_number: int = 3) -> Waves:
        """Draw five waves with A in [-0.5, 0.5], ω in [-0.4, 0.4], φ in [0, 2π), l in 1..highest_number.

        `default_rng(int(seed))` draws the five A, then the five ω, φ and l.

        Args:
            seed: a whole number, 0 <= seed < 2**32.
            highest_number: the largest l.

        Returns:
            The waves.

        Raises:
            ValueError: the seed is invalid.
        """
        random = seeded_generator(seed)
        return cls(
            amplitudes=random.uniform(-0.5, 0.5, WAVES),
            frequencies=random.uniform(-0.4, 0.4, WAVES),
            phases=random.uniform(0.0, 2 * np.pi, WAVES),
            numbers=random.integers(1, highest_number, WAVES, endpoint=True),
        )

    def averages(self, cells: int) -> Callable[[float], NDArray[np.float64]]:
        """Return a function of time that gives the exact averages over equal cells of [0, LENGTH], (cells,).

        Args:
            cells: number of cells.
        """
        centres = (np.arange(cells) + 0.5) / cells
        angles = 2 * np.pi * self.numbers[:, None] * centres + self.phases[:, None]
        weights = self.amplitudes * np.sinc(self.numbers / cells)
        sines, cosines = weights[:, None] * np.sin(angles), weights[:, None] * np.cos(angles)

        def at(time: float) -> NDArray[np.float64]:
            turned = self.frequencies * time
            values: NDArray[np.float64] = np.cos(turned) @ sines + np.sin(turned) @ cosines
            return values

        return at


class Advection1D:
    """Streams `u` (points,), float32: averages over equal cells, from the initial condition to the state at `end`.

    Parameters of a simulation: `initial`, the seed of δ and thus of the initial condition; optionally `alpha`, `beta`,
    `gamma`.

    Args:
        points: number of streamed cells; cell i is centred at (i + 1/2) 16/points.
        steps: number of streamed time steps, at equal intervals from time 0 to `end`.
        end: time of the last time step.
        resolution: number of computed cells, a multiple of points; the streamed averages of them are exact.
        forced: whether δ acts after time 0, too.
        highest_number: the largest wave number l.
        alpha: α, unless it is a parameter.
        beta: β, unless it is a parameter.
        gamma: γ, unless it is a parameter.

    Attributes:
        fields: the streamed field.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(
        self,
        points: int = 40,
        steps: int = 250,
        end: float = 4.0,
        resolution: int = 200,
        forced: bool = True,
        highest_number: int = 3,
        alpha: float = 1.0,
        beta: float = 0.0,
        gamma: float = 0.0,
    ) -> None:
        if points < 1 or resolution < 5 or resolution % points:
            near = points * max(math.ceil(5 / max(points, 1)), round(resolution / max(points, 1)))
            raise ValueError(
                f"resolution = {resolution}, points = {points}: expected a multiple of points, at least 5, "
                f"such as {near}"
            )
        if steps < 2 or end <= 0:
            raise ValueError(f"steps = {steps}, end = {end}: expected at least 2 steps, and an end after time 0")
        if highest_number < 1:
            raise ValueError(f"highest_number = {highest_number}: expected at least 1")
        self.points, self.steps, self.end, self.resolution = points, steps, end, resolution
        self.forced, self.highest_number = forced, highest_number
        self.fields = {"u": Field(shape=(points,), dtype="float32")}
        self._known = KnownParameters("advection1d", ("initial",), {"alpha": alpha, "beta": beta, "gamma": gamma})

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
            ValueError: a parameter is unknown or missing, the seed is invalid, or beta is negative.
            FloatingPointError: the solution blows up.
        """
        given = self._known.given(parameters)
        waves = Waves.drawn(given["initial"], self.highest_number).averages(self.resolution)
        forcing = waves if self.forced else None
        for time, u in self.integrate(waves(0.0), given["alpha"], given["beta"], given["gamma"], forcing):
            yield time, {"u": u.reshape(self.points, -1).mean(axis=1).astype(np.float32)}

    def integrate(
        self,
        initial: NDArray[np.float64],
        alpha: float,
        beta: float,
        gamma: float,
        forcing: Callable[[float], NDArray[np.float64]] | None = None,
    ) -> Iterator[tuple[float, NDArray[np.float64]]]:
        """Integrate given cell averages in double precision.

        Args:
            initial: cell averages at time 0, (resolution,).
            alpha: coefficient of advection.
            beta: coefficient of diffusion, 0 or more.
            gamma: coefficient of dispersion.
            forcing: function of time that gives the cell averages of δ, (resolution,); None: no forcing.

        Yields:
            Time and cell averages (resolution,) of each streamed time step.

        Raises:
            ValueError: beta is negative.
            FloatingPointError: the solution blows up.
        """
        if beta < 0:
            raise ValueError(f"beta = {beta}: expected 0 or more; negative diffusion lets every solution blow up")
        n = self.resolution
        width = LENGTH / n

        def advection_and_forcing(time: float, modes: Modes) -> Modes:
            rate = np.zeros(n) if forcing is None else forcing(time)
            if alpha != 0:
                flux = quadratic_flux(irfft(modes, n, workers=1), alpha)
                rate -= (flux - np.roll(flux, 1)) / width
            modes_of_rate: Modes = rfft(rate, workers=1)
            return modes_of_rate

        def largest_step(modes: Modes) -> float:
            fastest = 2 * abs(alpha) * float(np.abs(irfft(modes, n, workers=1)).max())
            return COURANT * width / fastest if fastest > 0 else math.inf

        wave_numbers = 2 * np.pi * np.fft.rfftfreq(n, width)
        dispersion = gamma * wave_numbers**3
        if n % 2 == 0:
            dispersion[-1] = 0.0  # an odd derivative of the Nyquist wave vanishes on the grid
        stepper = ExponentialRungeKutta(-beta * wave_numbers**2 + 1j * dispersion, advection_and_forcing, largest_step)
        times = np.linspace(0.0, self.end, self.steps)
        modes: Modes = rfft(initial, workers=1)
        for step, time in enumerate(times):
            if step > 0:
                modes = stepper.advance(float(times[step - 1]), modes, float(time - times[step - 1]))
            yield float(time), irfft(modes, n, workers=1)
