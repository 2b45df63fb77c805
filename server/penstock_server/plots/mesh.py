"""Layouts of a field for plotting: line, grid or triangles, chosen by the field's shape and its cell centres."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from matplotlib.axes import Axes
from matplotlib.tri import Triangulation
from numpy.typing import NDArray

Array = NDArray[Any]
_LONG = 3.0  # times the typical edge around its corners; a longer edge spans a hole or a bay of the mesh


@dataclass(frozen=True)
class Line:
    """Values over one coordinate.

    Attributes:
        x: coordinates, ascending.
        order: points in the order of x.
    """

    x: Array
    order: Array

    def values(self, flat: Array) -> Array:
        """Return the values (points,) in the order of x."""
        return flat[self.order]


@dataclass(frozen=True)
class Grid:
    """Values on a tensor grid.

    Attributes:
        order: points (ny, nx).
        x: coordinates (nx,); None for the index.
        y: coordinates (ny,); None for the index.
        note: description of the slice, "" where the field is two-dimensional.
    """

    order: Array
    x: Array | None = None
    y: Array | None = None
    note: str = ""

    def draw(self, axis: Axes, flat: Array, **style: Any) -> Any:
        """Plot the values (points,); `style` is passed to matplotlib."""
        values = flat[self.order]
        if self.x is None or self.y is None:
            return axis.imshow(values, origin="lower", interpolation="nearest", **style)
        axis.set_aspect("equal")
        return axis.pcolormesh(self.x, self.y, values, shading="nearest", **style)


@dataclass(frozen=True)
class Cloud:
    """Values at cell centres of an unstructured mesh, interpolated linearly between neighbours.

    Attributes:
        points: the points that are shown.
        triangulation: triangles between them.
        note: description of the slice, "" where the mesh is two-dimensional.
    """

    points: Array
    triangulation: Triangulation
    note: str = ""

    def draw(self, axis: Axes, flat: Array, **style: Any) -> Any:
        """Plot the values (points,); `style` is passed to matplotlib."""
        axis.set_aspect("equal")
        return axis.tripcolor(self.triangulation, flat[self.points], shading="gouraud", **style)


Layout = Line | Grid | Cloud


def cell_centres(mesh: Path) -> NDArray[np.float64] | None:
    """Read the cell centres from mesh.h5.

    Args:
        mesh: the file; need not exist.

    Returns:
        Shape (points, 3); None where they are not known.
    """
    if not mesh.is_file():
        return None
    with h5py.File(mesh, "r") as file:
        return file["cell_centres"][...].reshape(-1, 3) if "cell_centres" in file else None


def layout(shape: tuple[int, ...], centres: NDArray[np.float64] | None) -> Layout:
    """Choose the layout of a field.

    Args:
        shape: spatial shape of the field.
        centres: cell centres (points, 3); None where they are not known.
    """
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
    """Return the points of the layer nearest to the middle; without layers, of a slab about one cell thick."""
    middle = (height.min() + height.max()) / 2
    distance = np.abs(height - middle)
    step = 1e-6 * float(np.ptp(height))
    levels = np.unique(np.round(height / step)) * step
    if 2 * len(levels) > len(height):
        return np.flatnonzero(distance <= distance.min() + thickness / 2)
    # An even number of layers has no middle one: take the lower of the two.
    nearest = levels[np.argmin(np.abs(levels - middle))]
    return np.flatnonzero(np.abs(height - nearest) <= step)


def _tensor_grid(x: Array, y: Array) -> tuple[Array, Array, Array] | None:
    """Return (order (ny, nx), x (nx,), y (ny,)) if the points form a complete tensor grid, otherwise None."""
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
    """Return Delaunay triangles of the centres, without those that span holes and bays of the mesh."""
    triangulation = Triangulation(x, y)
    corners = triangulation.triangles
    ends = np.stack([corners, np.roll(corners, -1, axis=1)], axis=-1)
    lengths = np.hypot(x[ends[..., 0]] - x[ends[..., 1]], y[ends[..., 0]] - y[ends[..., 1]])
    # Typical length around each point: the median of its edges, which a few long edges do not change.
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
