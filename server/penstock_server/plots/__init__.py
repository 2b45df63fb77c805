"""Plots of a run: the course of training, and held-out simulations compared with their predictions.

matplotlib is imported only when something is plotted, and without pyplot, which has global state.
"""

from __future__ import annotations

from pathlib import Path

from penstock_client.errors import PenstockError

__all__ = ["PlotError", "plot_run"]


class PlotError(PenstockError):
    """The run directory has nothing to plot, or its files cannot be read."""


def plot_run(directory: Path, out: Path | None = None) -> list[Path]:
    """Plot the files of a run directory, also while the study runs.

    - training.png: loss, validation error, buffer and throughput, from metrics.jsonl.
    - rollout.png: for a model of windows, the error over the time step.
    - a file for each field of each simulation in validation_snapshots.h5: true, prediction and error.

    Args:
        directory: the run directory.
        out: folder of the PNG files; None for plots/ in the run directory.

    Returns:
        The PNG files.

    Raises:
        PlotError: there is nothing to plot, or a file cannot be read.
    """
    from penstock_server.plots.curves import draw_training, read_metrics
    from penstock_server.plots.fields import draw_snapshots
    from penstock_server.plots.rollout import draw_rollout
    from penstock_server.validation import FILE, read_snapshots

    metrics, snapshots = directory / "metrics.jsonl", directory / FILE
    out = directory / "plots" if out is None else out
    written: list[Path] = []
    try:
        training, validation = read_metrics(metrics) if metrics.is_file() else ([], [])
        if training or validation:
            out.mkdir(parents=True, exist_ok=True)
            written.append(draw_training(training, validation, out / "training.png"))
            rollout = draw_rollout(validation, out / "rollout.png")
            written += [] if rollout is None else [rollout]
        if snapshots.is_file():
            out.mkdir(parents=True, exist_ok=True)
            written += draw_snapshots(read_snapshots(snapshots), directory / "mesh.h5", out)
    except (OSError, ValueError, KeyError) as error:
        raise PlotError(f"the files of {directory} cannot be drawn: {error}") from error
    if not written:
        raise PlotError(
            f"nothing to draw in {directory}: expected metrics.jsonl with at least a line, or {FILE}; "
            "is it a run directory (penstock run STUDY --out DIR)?"
        )
    return written
