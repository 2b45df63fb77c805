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
    with figure(path, 3.2 * len(rates) + 1.2, 3.2) as drawing:
        for number, (axis, row) in enumerate(
            zip(drawing.subplots(1, len(rates), squeeze=False)[0], rates, strict=True)
        ):
            names = list(row.values)[::-1]
            medians = [statistics.median(row.values[name]) for name in names]
            low = [median - min(row.values[name]) for name, median in zip(names, medians, strict=True)]
            high = [max(row.values[name]) - median for name, median in zip(names, medians, strict=True)]
            colours = [BLUE if name == row.ours else GREY for name in names]
            axis.barh(np.arange(len(names)), medians, xerr=[low, high], color=colours, ecolor="#222222", capsize=2)
            axis.set_yticks(np.arange(len(names)), names)
            axis.set_xscale("log")
            axis.set_title(row.case.partition(",")[0])
            axis.set_xlabel("samples/s" if number else "samples/s, logarithmic")
            axis.grid(visible=False, axis="y")
    return True
