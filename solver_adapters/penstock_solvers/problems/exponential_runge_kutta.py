"""The exponential Runge-Kutta scheme ETDRK4 for stiff semi-linear equations dv/dt = L v + N(t, v) with diagonal L.

Cox & Matthews 2002 (J. Comput. Phys. 176, eqs. 26 to 29), with coefficients by the contour integrals of Kassam &
Trefethen 2005 (SIAM J. Sci. Comput. 26, eq. 2.5). The linear part is exact for any step size; with L = 0 the scheme is
the classical Runge-Kutta scheme.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Modes = NDArray[np.complex128]
CONTOUR_POINTS = 32
MARGIN = 1.1  # safety factor of an interval's first step size, so that slow growth does not halve the steps
SMALLEST_STEP = 1e-9  # fraction of an interval; smaller steps mean that the solution blows up


@dataclass(frozen=True)
class _Coefficients:
    """Coefficients of the scheme for one step size; each has the shape of the modes."""

    whole: NDArray[Any]
    half: NDArray[Any]
    stage: NDArray[Any]
    first: NDArray[Any]
    middle: NDArray[Any]
    last: NDArray[Any]

    @classmethod
    def of(cls, linear: NDArray[Any], dt: float) -> _Coefficients:
        z = dt * linear
        # Means over a circle around each z, because the closed forms suffer from cancellation near z = 0.
        circle = np.exp(2j * np.pi * (np.arange(CONTOUR_POINTS) + 0.5) / CONTOUR_POINTS)
        r = z[..., None] + circle
        grown = np.exp(r)

        def mean(values: NDArray[np.complex128]) -> NDArray[Any]:
            average: NDArray[Any] = dt * values.mean(axis=-1)
            return average if np.iscomplexobj(linear) else average.real

        return cls(
            whole=np.exp(z),
            half=np.exp(z / 2),
            stage=mean((np.exp(r / 2) - 1) / r),
            first=mean((-4 - r + grown * (4 - 3 * r + r**2)) / r**3),
            middle=mean(2 * (2 + r + grown * (r - 2)) / r**3),
            last=mean((-4 - 3 * r - r**2 + grown * (4 - r)) / r**3),
        )


class ExponentialRungeKutta:
    """Integrates modes v of dv/dt = linear * v + nonlinear(t, v).

    Args:
        linear: the diagonal of L, real or complex, with the shape of the modes.
        nonlinear: function of time and modes that gives dv/dt without the linear part.
        largest_step: function of the modes that gives the largest stable time step; may be infinite.
    """

    def __init__(
        self,
        linear: NDArray[Any],
        nonlinear: Callable[[float, Modes], Modes],
        largest_step: Callable[[Modes], float],
    ) -> None:
        self._linear, self._nonlinear, self._largest_step = linear, nonlinear, largest_step
        self._dt = 0.0
        self._coefficients: _Coefficients | None = None

    def step(self, time: float, modes: Modes, dt: float) -> Modes:
        """Take one step.

        Args:
            time: time of `modes`.
            modes: the modes.
            dt: step size.

        Returns:
            The modes at time + dt.
        """
        if self._coefficients is None or self._dt != dt:
            self._coefficients, self._dt = _Coefficients.of(self._linear, dt), dt
        c, rate = self._coefficients, self._nonlinear
        at_start = rate(time, modes)
        decayed = c.half * modes
        a = decayed + c.stage * at_start
        at_a = rate(time + dt / 2, a)
        at_b = rate(time + dt / 2, decayed + c.stage * at_a)
        at_end = rate(time + dt, c.half * a + c.stage * (2 * at_b - at_start))
        result: Modes = c.whole * modes + c.first * at_start + c.middle * (at_a + at_b) + c.last * at_end
        return result

    def advance(self, time: float, modes: Modes, interval: float) -> Modes:
        """Integrate over an interval in equal steps within `largest_step`, halving them where it decreases.

        Args:
            time: time of `modes`.
            modes: the modes.
            interval: length of the interval.

        Returns:
            The modes at time + interval.

        Raises:
            FloatingPointError: the solution is no longer finite, or grows so fast that no step is small enough.
        """
        steps = 1
        limit = self._largest_step(modes)
        if limit < math.inf:
            steps = max(1, math.ceil(MARGIN * interval / max(limit, SMALLEST_STEP * interval)))
        done, dt = 0, interval / steps
        while done < steps:
            limit = self._largest_step(modes)
            while dt > limit:
                done, steps, dt = 2 * done, 2 * steps, dt / 2
                if dt < SMALLEST_STEP * interval:
                    raise FloatingPointError(
                        f"the solution blows up at time {time + done * dt:g}: no time step is small enough there"
                    )
            modes = self.step(time + done * dt, modes, dt)
            done += 1
        if not np.isfinite(modes).all():
            raise FloatingPointError(
                f"the solution is not finite at time {time + interval:g} with time steps of {dt:g}; "
                "take smaller ones or a finer grid"
            )
        return modes
