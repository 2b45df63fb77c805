"""Held-out time steps: the true field, the prediction and the error, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from penstock_server.plots.magnitude import magnitude
from penstock_server.plots.mesh import Cloud, Grid, Layout, Line, cell_centres, layout
from penstock_server.plots.style import BLUE, ORANGE, RED, SIGNED, UNSIGNED, VALUES, figure
from penstock_server.validation import Snapshot, Snapshots

ROWS = 3  # time steps of a simulation that one picture shows
_MAX_SHAPE = (2.4, 4.2)  # inches of one panel: least and most


def draw_snapshots(snapshots: Snapshots, mesh: Path, out: Path) -> list[Path]:
    """Plot each field of each simulation, with a row for each of three time steps.

    Vector and tensor fields are shown by their magnitude, their error by the magnitude of the difference.

    Args:
        snapshots: held-out time steps, true and predicted.
        mesh: mesh.h5 with `cell_centres` (points, 3); need not exist.
        out: folder of the PNG files.

    Returns:
        The PNG files.
    """
    centres = cell_centres(mesh)
    by_simulation: dict[int, list[Snapshot]] = {}
    for item in snapshots.items:
        by_simulation.setdefault(item.simulation, []).append(item)
    written = []
    for simulation, held in by_simulation.items():
        items = [held[place] for place in sorted({max(0, round(len(held) * k / ROWS) - 1) for k in range(1, ROWS + 1)})]
        for name in items[0].true:
            path = out / f"simulation_{simulation}_{name}.png"
            _draw(items, name, centres, snapshots.batches, path)
            written.append(path)
    return written


def _draw(items: list[Snapshot], name: str, centres: NDArray[np.float64] | None, batches: int, path: Path) -> None:
    shape, components = items[0].true[name].shape[:-1], items[0].true[name].shape[-1]
    how = layout(shape, centres)
    columns = 2 if isinstance(how, Line) else 3
    width, height = _panel(how)
    with figure(path, columns * width + 1.4, len(items) * height + 0.9) as drawing:
        rows = drawing.subplots(len(items), columns, squeeze=False, sharex=True)
        for axes, item in zip(rows, items, strict=True):
            true, prediction = item.true[name], item.prediction[name]
            if isinstance(how, Line):
                _draw_lines(list(axes), how, true, prediction)
            else:
                _draw_maps(drawing, list(axes), how, true, prediction)
            axes[0].set_ylabel(f"time {item.inputs['time']:g}", fontsize=10)
        of = "" if components == 1 else ", magnitude"
        note = "" if isinstance(how, Line) or not how.note else f", {how.note}"
        point = ", ".join(f"{k} = {v:.4g}" for k, v in items[0].inputs.items() if k != "time")
        if reference := items[0].references.get(name):
            name = f"{name} {'-' if reference > 0 else '+'} {abs(reference):.12g}"
        drawing.suptitle(f"{name}{of}{note} · held-out simulation {items[0].simulation} · {batches:,} batches\n{point}")


def _draw_maps(drawing: Figure, axes: list[Axes], how: Grid | Cloud, true: Any, prediction: Any) -> None:
    shown = [magnitude(true), magnitude(prediction)]
    # A common colour scale, so that a prediction that overshoots is visible.
    low, high = min(v.min() for v in shown), max(v.max() for v in shown)
    for axis, values, title in zip(axes, shown, ("true", "prediction"), strict=False):
        picture = how.draw(axis, values, cmap=VALUES, vmin=low, vmax=high)
        axis.set_title(title)
    drawing.colorbar(picture, ax=axes[:2], shrink=0.85, pad=0.02)
    scalar = true.shape[-1] == 1
    error = (prediction - true).reshape(-1) if scalar else magnitude(prediction - true)
    largest = float(np.abs(error).max()) or 1.0
    style = (
        {"cmap": SIGNED, "vmin": -largest, "vmax": largest}
        if scalar
        else {"cmap": UNSIGNED, "vmin": 0, "vmax": largest}
    )
    picture = how.draw(axes[2], error, **style)
    axes[2].set_title(("prediction - true" if scalar else "|prediction - true|") + _relative(true, prediction))
    drawing.colorbar(picture, ax=axes[2], shrink=0.85, pad=0.02)
    for axis in axes:
        axis.grid(visible=False)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)


def _draw_lines(axes: list[Axes], how: Line, true: Any, prediction: Any) -> None:
    axes[0].plot(how.x, how.values(magnitude(true)), color=BLUE, label="true")
    axes[0].plot(how.x, how.values(magnitude(prediction)), color=ORANGE, linestyle="--", label="prediction")
    axes[0].legend(loc="best")
    error = magnitude(prediction - true) if true.shape[-1] > 1 else (prediction - true).reshape(-1)
    axes[1].axhline(0, color="#999999", linewidth=0.6)
    axes[1].plot(how.x, how.values(error), color=RED)
    axes[1].set_title(
        ("|prediction - true|" if true.shape[-1] > 1 else "prediction - true") + _relative(true, prediction)
    )


def _relative(true: Any, prediction: Any) -> str:
    norm = float(np.linalg.norm(true.astype(np.float64)))
    return f" (relative L2 {np.linalg.norm(prediction - true) / norm:.3g})" if norm > 0 else ""


def _panel(how: Layout) -> tuple[float, float]:
    """Return width and height of one panel in inches, with about the proportions of the mesh."""
    if isinstance(how, Line):
        return 4.4, 2.2
    if isinstance(how, Cloud):
        spans = float(np.ptp(how.triangulation.x)), float(np.ptp(how.triangulation.y))
    elif how.x is not None and how.y is not None:
        spans = float(np.ptp(how.x)), float(np.ptp(how.y))
    else:
        spans = float(how.order.shape[1]), float(how.order.shape[0])
    least, most = _MAX_SHAPE
    ratio = spans[0] / spans[1] if spans[1] else 1.0
    width = min(most, max(least, 2.8 * ratio**0.5))
    return width, min(most, max(1.3, width / ratio + 0.25))
