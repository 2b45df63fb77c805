"""Draw the offline error over the size of the dataset, with the online error as a line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from penstock_server.plots.style import BLUE, ORANGE, figure

ONLINE = "online reservoir"


def draw_dataset_curve(models: Mapping[str, Any], titles: Mapping[str, str], path: Path) -> Path:
    """Draw a panel for each model.

    Showing all dataset sizes avoids the choice of a flattering one.

    Args:
        models: "models" of online_vs_offline.json.
        titles: title of each model's panel.
        path: file to write.

    Returns:
        The path.
    """
    with figure(path, 10.0, 6.5) as drawing:
        axes = list(drawing.subplots(2, 2).flat)
        for axis, (model, one) in zip(axes, models.items(), strict=False):
            _panel(axis, one["rows"])
            axis.set_title(titles[model])
        for axis in axes[len(models) :]:
            axis.set_axis_off()
    return path


def _panel(axis: Axes, rows: list[dict[str, Any]]) -> None:
    offline = [r for r in rows if r["source"] == "offline"]
    sizes = sorted({r["gigabytes"] for r in offline})
    errors = [[r["validation_error"] for r in offline if r["gigabytes"] == size] for size in sizes]
    megabytes = [1000 * size for size in sizes]
    axis.errorbar(
        megabytes,
        [np.mean(e) for e in errors],
        yerr=[[np.mean(e) - min(e) for e in errors], [max(e) - np.mean(e) for e in errors]],
        color=BLUE,
        marker="o",
        capsize=3,
        label="offline, by dataset size",
    )
    online = [r["validation_error"] for r in rows if r["variant"] == ONLINE]
    seen = np.mean([r["gigabytes"] for r in rows if r["variant"] == ONLINE])
    axis.axhspan(min(online), max(online), color=ORANGE, alpha=0.2, linewidth=0)
    axis.axhline(float(np.mean(online)), color=ORANGE, label=f"online, {1000 * seen:.3g} MB streamed, none stored")
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks(megabytes, [f"{size:.3g}" for size in megabytes], minor=False)
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlabel("dataset (MB)")
    axis.set_ylabel("held-out relative L2 error")
    axis.legend()
