"""Pictures of a run: how training went, and how held-out simulations compare with their predictions.

matplotlib is imported only when a picture is drawn, and without pyplot: nothing global is touched.
"""

from __future__ import annotations

from pathlib import Path

from penstock_client.errors import PenstockError

__all__ = ["PlotError", "plot_run"]


class PlotError(PenstockError):
    """A run directory without anything to draw, or with files that cannot be read."""


def plot_run(directory: Path, out: Path | None = None) -> list[Path]:
    """Draw what the run directory has so far, also while it runs; returns the PNG files written to `out` (its plots/).

    training.png: loss, validation error, buffer and throughput, from metrics.jsonl. rollout.png: for a model of windows, the error
    over the time step. A picture for each field of each
    simulation in validation_snapshots.h5: true, prediction and error. Raises PlotError.
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
