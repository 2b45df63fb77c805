"""Fifth-order weighted essentially non-oscillatory (WENO) finite volumes on a periodic line.

Jiang & Shu 1996 (J. Comput. Phys. 126), in the finite-volume form of Shu 1998 (ICASE 97-65, procedure 2.2 and eqs. 2.61
to 2.63).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

EPSILON = 1e-6  # keeps weights finite where the solution is constant (Jiang & Shu, eq. 2.16)


def face_values(averages: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Reconstruct the solution on both sides of the right face of each cell.

    Args:
        averages: cell averages, (cells,), periodic, at least 5.

    Returns:
        The values on the left side, extrapolated from the cell itself, and on the right side, extrapolated from its
        right neighbour; (cells,) each.
    """
    n = averages.size
    padded = np.empty((2, n + 4))  # the line and its mirror image, so that one reconstruction gives both sides
    padded[0, 2:-2] = averages
    padded[1, 2:-2] = averages[::-1]
    padded[:, :2] = padded[:, n : n + 2]
    padded[:, -2:] = padded[:, 2:4]
    a, b, c, d, e = (padded[:, i : n + i] for i in range(5))

    bend = padded[:, 2:] - 2.0 * padded[:, 1:-1] + padded[:, :-2]
    bend *= bend
    bend *= 13.0 / 12.0
    bend += EPSILON
    slope = a - 4.0 * b + 3.0 * c
    rough_left = bend[:, :n] + 0.25 * slope * slope
    slope = b - d
    rough_middle = bend[:, 1 : n + 1] + 0.25 * slope * slope
    slope = 3.0 * c - 4.0 * d + e
    rough_right = bend[:, 2:] + 0.25 * slope * slope

    left = 0.1 / (rough_left * rough_left)
    middle = 0.6 / (rough_middle * rough_middle)
    right = 0.3 / (rough_right * rough_right)
    face = left * (2.0 * a - 7.0 * b + 11.0 * c)
    face += middle * (5.0 * c - b + 2.0 * d)
    face += right * (2.0 * c + 5.0 * d - e)
    face /= 6.0 * (left + middle + right)
    return face[0], np.roll(face[1, ::-1], -1)


def quadratic_flux(averages: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    """Compute the local Lax-Friedrichs flux of alpha u² through the right face of each cell.

    Args:
        averages: cell averages of u, (cells,), periodic.
        alpha: coefficient of the flux.

    Returns:
        The flux, (cells,).
    """
    left, right = face_values(averages)
    fastest = np.maximum(np.abs(left), np.abs(right))  # the wave speed is 2 alpha u
    flux: NDArray[np.float64] = 0.5 * alpha * (left * left + right * right) - abs(alpha) * fastest * (right - left)
    return flux
