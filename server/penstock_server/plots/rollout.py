"""The error of a rollout over the time steps, at several moments of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from penstock_server.plots.style import BLUE, figure

_CURVES = 5


def draw_rollout(validation: list[dict[str, Any]], path: Path) -> Path | None:
    """Plot the relative L2 error over the time steps at a few validations, the last one darkest.

    Args:
        validation: "validation" lines of metrics.jsonl.
        path: PNG file to write.

    Returns:
        `path`, or None where no line has a rollout (a model of single time steps).
    """
    lines = [line for line in validation if line.get("rollout")]
    if not lines:
        return None
    chosen = [lines[i] for i in sorted({round(k) for k in np.linspace(0, len(lines) - 1, _CURVES)})]
    with figure(path, 6.0, 4.0) as drawing:
        axis = drawing.subplots()
        for number, line in enumerate(chosen, start=1):
            rollout = line["rollout"]
            axis.plot(
                rollout["steps"],
                rollout["relative_l2_by_step"],
                color=BLUE,
                alpha=number / len(chosen),
                label=f"after {line['batches']} batches (mean {rollout['relative_l2']:.3g})",
            )
        axis.set_title("Rollout of held-out simulations")
        axis.set_xlabel("time step")
        axis.set_ylabel("relative L2 error")
        axis.set_yscale("log")
        axis.legend()
    return path
