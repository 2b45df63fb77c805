"""How to lay values on paper: which of line, grid or triangles fits a field's shape and its cell centres."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.tri import Triangulation
from numpy.typing import NDArray

Array = NDArray[Any]
_LONG = 3.0  # times the typical edge around its corners: a longer edge bridges a hole or a bay in the mesh


@dataclass(frozen=True)
class Line:
    """Values over one coordinate. order: which points, in ascending order of x."""

    x: Array
    order: Array

    def values(self, flat: Array) -> Array:
        return flat[self.order]


@dataclass(frozen=True)
class Grid:
    """Values on a tensor grid (ny, nx). order: points (ny, nx). x, y: coordinates, or None for the index. note: for a slice."""

    order: Array
    x: Array | None = None
    y: Array | None = None
    note: str = ""

    def draw(self, axis: Axes, flat: Array, **style: Any) -> Any:
        values = flat[self.order]
        if self.x is None or self.y is None:
            return axis.imshow(values, origin="lower", interpolation="nearest", **style)
        axis.set_aspect("equal")
        return axis.pcolormesh(self.x, self.y, values, shading="nearest", **style)


@dataclass(frozen=True)
class Cloud:
    """Values at cell centres of an unstructured mesh, interpolated linearly between neighbours. points: which; note: for a slice."""

    points: Array
    triangulation: Triangulation
    note: str = ""

    def draw(self, axis: Axes, flat: Array, **style: Any) -> Any:
        axis.set_aspect("equal")
        return axis.tripcolor(self.triangulation, flat[self.points], shading="gouraud", **style)


Layout = Line | Grid | Cloud


def layout(shape: tuple[int, ...], centres: NDArray[np.float64] | None) -> Layout:
    """The layout for a field of this spatial shape whose cell centres (points, 3) are known or None."""
    points = math.prod(shape)
    if len(shape) >= 2:
        return _structured(shape, points)
    if centres is None or len(centres) != points:
        return Line(np.arange(points), np.arange(points))
    return _unstructured(centres)


def _structured(shape: tuple[int, ...], points: int) -> Grid:
    order = np.arange(points).reshape(shape)
    note = ""
    while order.ndim > 2:
        note = f"slice through the middle ({order.shape[0] // 2} of {order.shape[0]})"
        order = order[order.shape[0] // 2]
    return Grid(order, note=note)


def _unstructured(centres: NDArray[np.float64]) -> Layout:
    extent = np.ptp(centres, axis=0)
    axes = [a for a in range(3) if extent[a] > 1e-6 * extent.max()]
    if len(axes) <= 1:
        axis = axes[0] if axes else 0
        order = np.argsort(centres[:, axis], kind="stable")
        return Line(centres[order, axis], order)
    points, note = np.arange(len(centres)), ""
    if len(axes) == 3:
        across = min(axes, key=lambda a: extent[a])
        axes.remove(across)
        points = _slice(centres[:, across], float(np.prod(extent) / len(centres)) ** (1 / 3))
        note = f"slice at {'xyz'[across]} = {centres[points, across].mean():.3g}"
    x, y = centres[points][:, axes].T
    grid = _tensor_grid(x, y)
    if grid is not None:
        order, columns, rows = grid
        return Grid(points[order], columns, rows, note)
    return Cloud(points, _triangles(x, y), note)


def _slice(height: Array, thickness: float) -> Array:
    """Which points lie in the layer nearest to the middle; of a mesh without layers, in a slab about one cell thick."""
    middle = (height.min() + height.max()) / 2
    distance = np.abs(height - middle)
    step = 1e-6 * float(np.ptp(height))
    levels = np.unique(np.round(height / step)) * step
    if 2 * len(levels) > len(height):
        return np.flatnonzero(distance <= distance.min() + thickness / 2)
    # An even number of layers has none in the middle: the lower of the two is taken.
    nearest = levels[np.argmin(np.abs(levels - middle))]
    return np.flatnonzero(np.abs(height - nearest) <= step)


def _tensor_grid(x: Array, y: Array) -> tuple[Array, Array, Array] | None:
    """(order (ny, nx), x (nx,), y (ny,)) where the points are all crossings of rows and columns, else None."""
    step = 1e-6 * max(float(np.ptp(x)), float(np.ptp(y)))
    columns, column = np.unique(np.round(x / step), return_inverse=True)
    rows, row = np.unique(np.round(y / step), return_inverse=True)
    if len(columns) * len(rows) != len(x):
        return None
    order = np.full((len(rows), len(columns)), -1)
    order[row, column] = np.arange(len(x))
    if len(columns) < 2 or len(rows) < 2 or (order < 0).any():
        return None
    return order, columns * step, rows * step


def _triangles(x: Array, y: Array) -> Triangulation:
    """Delaunay triangles of the centres without those that bridge holes and bays of the mesh."""
    triangulation = Triangulation(x, y)
    corners = triangulation.triangles
    ends = np.stack([corners, np.roll(corners, -1, axis=1)], axis=-1)
    lengths = np.hypot(x[ends[..., 0]] - x[ends[..., 1]], y[ends[..., 0]] - y[ends[..., 1]])
    # Typical length around each point: the median of its edges, which a few bridges do not move.
    point = ends.reshape(-1)
    length = np.repeat(lengths.reshape(-1), 2)
    by_point = np.lexsort((length, point))
    starts = np.searchsorted(point[by_point], np.arange(len(x)))
    counts = np.bincount(point, minlength=len(x))
    middles = np.minimum(starts + counts // 2, len(length) - 1)
    typical = length[by_point][middles]
    longest_fair = _LONG * np.min(typical[corners], axis=1)
    triangulation.set_mask(lengths.max(axis=1) > longest_fair)
    return triangulation
