"""The end-to-end rates as a bar chart."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np

from penstock_server.plots.style import BLUE, GREY, figure
from performance.pairs import Row


def draw(rows: list[Row], path: Path) -> bool:
    """Draw a panel for each size of time steps.

    Args:
        rows: of a run; only those of the end-to-end rates are drawn.
        path: PNG file to write.

    Returns:
        Whether there was anything to draw.
    """
    rates = [row for row in rows if row.group == "end to end" and row.figure == "samples/s" and row.values]
    if not rates:
        return False
    names = list(dict.fromkeys(name for row in rates for name in row.values))[::-1]
    places = np.arange(len(names))
    with figure(path, 2.6 * len(rates) + 3.4, 0.3 * len(names) + 1.0) as drawing:
        panels = drawing.subplots(1, len(rates), squeeze=False, sharey=True)[0]
        for axis, row in zip(panels, rates, strict=True):
            medians = [statistics.median(row.values.get(name, [0.0])) for name in names]
            low = [median - min(row.values.get(name, [0.0])) for name, median in zip(names, medians, strict=True)]
            high = [max(row.values.get(name, [0.0])) - median for name, median in zip(names, medians, strict=True)]
            colours = [BLUE if name == row.ours else GREY for name in names]
            bars = axis.barh(places, medians, xerr=[low, high], color=colours, ecolor="#222222", capsize=2)
            axis.bar_label(bars, [f"{median:,.0f}" if median else "-" for median in medians], padding=3, fontsize=7)
            axis.set_yticks(places, names)
            axis.set_xlim(0, 1.3 * max(medians))
            axis.set_title(row.case.partition(",")[0])
            axis.set_xlabel("samples/s")
            axis.locator_params(axis="x", nbins=3)
            axis.grid(visible=False, axis="y")
    return True
