"""The common style of all plots."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

# Okabe and Ito (2008): distinguishable with colour vision deficiencies.
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#6E6E6E"
CYCLE = (BLUE, ORANGE, GREEN, RED, PURPLE, GREY)
VALUES, SIGNED, UNSIGNED = "viridis", "RdBu_r", "magma_r"

_STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.4,
    "figure.titlesize": 11,
}


@contextmanager
def figure(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Make a figure and save it when the block ends.

    Args:
        path: PNG file to write.
        width: width in inches.
        height: height in inches.

    Yields:
        The figure.
    """
    with mpl.rc_context(_STYLE):
        made = Figure(figsize=(width, height), layout="constrained")
        yield made
        made.savefig(path, dpi=130)
