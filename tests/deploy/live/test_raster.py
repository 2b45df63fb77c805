"""Fields of every mesh become pixels that show their values where they are."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.live.raster import MOST_PIXELS, Raster, how_to_show
from penstock_server.plots.mesh import Line


def scattered(number: int = 3000, *, hole: bool = False) -> np.ndarray:
    points = np.random.default_rng(2).uniform(-1, 1, (number, 2))
    if hole:
        points = points[np.hypot(*points.T) > 0.4]
    return np.column_stack([2 * points[:, 0], points[:, 1], np.full(len(points), 0.1)])


def positions(raster: Raster) -> tuple[np.ndarray, np.ndarray]:
    """The x and y of each pixel."""
    rows, columns = raster.points.shape[:2]
    x = raster.corner[0] + (np.arange(columns) + 0.5) * raster.size[0] / columns
    y = raster.corner[1] + (np.arange(rows) + 0.5) * raster.size[1] / rows
    return np.meshgrid(x, y)


def test_a_linear_field_on_an_unstructured_mesh_is_exact_in_every_pixel() -> None:
    centres = scattered()
    raster = how_to_show((len(centres),), centres)
    assert isinstance(raster, Raster)
    assert raster.axes == ("x", "y")
    x, y = positions(raster)
    pixels = raster.pixels(3 * centres[:, 0] - centres[:, 1] + 0.5)
    inside = np.isfinite(pixels)
    assert inside.mean() > 0.9
    np.testing.assert_allclose(pixels[inside], (3 * x - y + 0.5)[inside], atol=1e-5)


def test_a_hole_in_the_mesh_stays_empty() -> None:
    centres = scattered(20000, hole=True)
    raster = how_to_show((len(centres),), centres)
    assert isinstance(raster, Raster)
    x, y = positions(raster)
    pixels = raster.pixels(np.ones(len(centres)))
    assert np.isnan(pixels[np.hypot(x / 2, y) < 0.3]).all()


@pytest.mark.parametrize("stretched", [False, True])
def test_cells_of_a_structured_case_are_seen_where_they_are(stretched: bool) -> None:
    x, y = (np.arange(12.0) ** (2 if stretched else 1) + 0.5), np.arange(7.0)
    centres = np.stack([*np.meshgrid(x, y), np.zeros((7, 12))], axis=-1).reshape(-1, 3)
    centres = np.random.default_rng(1).permutation(centres)
    raster = how_to_show((84,), centres)
    assert isinstance(raster, Raster)
    shown_x, shown_y = positions(raster)
    pixels = raster.pixels(centres[:, 0])
    cell = np.abs(pixels[..., None] - x).argmin(axis=-1)
    edges = np.concatenate([[-np.inf], (x[1:] + x[:-1]) / 2, [np.inf]])
    assert ((edges[cell] <= shown_x) & (shown_x <= edges[cell + 1])).all()
    np.testing.assert_allclose(raster.pixels(centres[:, 1]), np.round(shown_y), atol=1e-6)


def test_large_and_three_dimensional_fields_are_bounded_pictures() -> None:
    large = how_to_show((1000, 500), None)
    assert isinstance(large, Raster)
    assert large.points.shape == (MOST_PIXELS, MOST_PIXELS // 2, 1)
    assert large.axes == ("column", "row")
    solid = how_to_show((9, 8, 7), None)
    assert isinstance(solid, Raster)
    assert solid.note == "slice through the middle (4 of 9)"
    assert isinstance(how_to_show((50,), None), Line)
