"""One number for each point of a field, to show it by a colour or a curve."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# A symmetric tensor holds xx, xy, xz, yy, yz, zz: each off-diagonal stands for two.
_SYMMETRIC = np.array([1.0, 2.0, 2.0, 1.0, 2.0, 1.0])


def magnitude(values: Any) -> NDArray[np.float64]:
    """Return the scalar itself, or the Euclidean norm of a vector or tensor.

    Args:
        values: a field, (*shape, components).

    Returns:
        Shape (points,).
    """
    flat = values.reshape(-1, values.shape[-1]).astype(np.float64)
    if flat.shape[1] == 1:
        return flat[:, 0]  # type: ignore[no-any-return]
    weights = _SYMMETRIC if flat.shape[1] == 6 else np.ones(flat.shape[1])
    return np.sqrt(flat**2 @ weights)  # type: ignore[no-any-return]
