"""Fields as rectangles of pixels, whatever their mesh: what a browser draws fastest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock_server.plots.mesh import Cloud, Grid, Line, layout

MOST_PIXELS = 160  # along the longer side of a mesh that is no small uniform grid

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Raster:
    """How the values of a field become pixels.

    Attributes:
        corner: x and y of the lower left corner.
        size: width and height in the coordinates of the mesh, or in cells.
        axes: what x and y are: "x", "y", "z", or "column", "row" where the field has indices only.
        note: description of the slice; "" where the mesh is two-dimensional.
        points: the points that a pixel takes its value from, (rows, columns, k).
        weights: of these points, (rows, columns, k); NaN outside of the mesh.
    """

    corner: tuple[float, float]
    size: tuple[float, float]
    axes: tuple[str, str]
    note: str
    points: NDArray[np.intp]
    weights: NDArray[np.float32]

    def pixels(self, values: Floats) -> NDArray[np.float32]:
        """Return the picture of values (points,): (rows, columns), the lowest row first; NaN outside of the mesh."""
        with np.errstate(over="ignore", invalid="ignore"):  # a model at its start may predict anything
            picture: NDArray[np.float32] = (values[self.points] * self.weights).sum(axis=-1).astype(np.float32)
        return picture


Shown = Raster | Line


def how_to_show(shape: tuple[int, ...], centres: Floats | None) -> Shown:
    """Choose how to show a field.

    Args:
        shape: spatial shape of the field.
        centres: cell centres (points, 3); None where they are not known.

    Returns:
        Pixels, or a line for a field over one coordinate.
    """
    found = layout(shape, centres)
    if isinstance(found, Line):
        return found
    axes = ("column", "row")
    if len(shape) < 2 and centres is not None:
        extent = np.ptp(centres, axis=0)
        across = int(np.argmin(extent))
        first, second = ("xyz"[a] for a in range(3) if a != across)
        axes = (first, second)
    return _of_grid(found, axes) if isinstance(found, Grid) else _of_cloud(found, axes)


def _of_grid(grid: Grid, axes: tuple[str, str]) -> Raster:
    rows, columns = grid.order.shape
    x = np.arange(columns, dtype=np.float64) if grid.x is None else np.asarray(grid.x, dtype=np.float64)
    y = np.arange(rows, dtype=np.float64) if grid.y is None else np.asarray(grid.y, dtype=np.float64)
    (left, right), (low, high) = _outer_edges(x), _outer_edges(y)
    if max(rows, columns) > MOST_PIXELS or not (_uniform(x) and _uniform(y)):
        width, height = _pixels(right - left, high - low)
        order = grid.order[np.ix_(_nearest(y, low, high, height), _nearest(x, left, right, width))]
    else:
        order = grid.order
    points = order[..., None]
    return Raster(
        (left, low), (right - left, high - low), axes, grid.note, points, np.ones(points.shape, dtype=np.float32)
    )


def _of_cloud(cloud: Cloud, axes: tuple[str, str]) -> Raster:
    """Interpolate linearly in the triangles between cell centres, as `penstock plot` does."""
    mesh = cloud.triangulation
    left, right, low, high = (float(edge) for edge in (mesh.x.min(), mesh.x.max(), mesh.y.min(), mesh.y.max()))
    columns, rows = _pixels(right - left, high - low)
    x = left + (np.arange(columns) + 0.5) * (right - left) / columns
    y = low + (np.arange(rows) + 0.5) * (high - low) / rows
    x, y = np.meshgrid(x, y)
    triangle: NDArray[np.intp] = np.asarray(mesh.get_trifinder()(x, y))
    corners = mesh.triangles[np.maximum(triangle, 0)]
    (ax, bx, cx), (ay, by, cy) = np.moveaxis(mesh.x[corners], -1, 0), np.moveaxis(mesh.y[corners], -1, 0)
    area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
    area[area == 0] = np.nan
    second = ((x - ax) * (cy - ay) - (cx - ax) * (y - ay)) / area
    third = ((bx - ax) * (y - ay) - (x - ax) * (by - ay)) / area
    weights = np.stack([1 - second - third, second, third], axis=-1)
    weights[triangle < 0] = np.nan
    return Raster(
        (left, low),
        (right - left, high - low),
        axes,
        cloud.note,
        cloud.points[corners],
        weights.astype(np.float32),
    )


def _outer_edges(centres: Floats) -> tuple[float, float]:
    """Return where the first cell begins and the last one ends."""
    if len(centres) < 2:
        return float(centres[0]) - 0.5, float(centres[0]) + 0.5
    return (
        float(centres[0] - (centres[1] - centres[0]) / 2),
        float(centres[-1] + (centres[-1] - centres[-2]) / 2),
    )


def _uniform(centres: Floats) -> bool:
    steps = np.diff(centres)
    return len(steps) < 2 or bool(np.ptp(steps) < 1e-3 * steps.mean())


def _pixels(width: float, height: float) -> tuple[int, int]:
    """Return columns and rows of square pixels; a long, thin mesh gets pixels that are higher than wide."""
    longer = max(width, height)
    return max(MOST_PIXELS // 8, round(MOST_PIXELS * width / longer)), max(
        MOST_PIXELS // 8, round(MOST_PIXELS * height / longer)
    )


def _nearest(centres: Floats, low: float, high: float, number: int) -> NDArray[np.intp]:
    """Return the cell that holds each of so many pixels."""
    at = low + (np.arange(number) + 0.5) * (high - low) / number
    between = (centres[1:] + centres[:-1]) / 2
    return np.searchsorted(between, at)
