"""The course of training: loss, validation error, buffer and throughput over batches and wall time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray

from penstock_server.plots.style import BLUE, CYCLE, GREEN, GREY, ORANGE, figure

Line = dict[str, Any]


def read_metrics(path: Path) -> tuple[list[Line], list[Line]]:
    """Read metrics.jsonl. A last line without newline is still being written and is left out.

    Args:
        path: the file.

    Returns:
        The "train" lines and the "validation" lines.

    Raises:
        ValueError: a line is no JSON object with a kind.
    """
    training: list[Line] = []
    validation: list[Line] = []
    lines = path.read_text().split("\n")[:-1]
    for number, text in enumerate(lines, start=1):
        try:
            line = json.loads(text)
            kind = line["kind"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        if kind == "train":
            training.append(line)
        elif kind == "validation":
            validation.append(line)
    return training, validation


def draw_training(training: list[Line], validation: list[Line], path: Path) -> Path:
    """Plot training in six panels.

    Args:
        training: "train" lines of metrics.jsonl.
        validation: "validation" lines of metrics.jsonl.
        path: PNG file to write.

    Returns:
        `path`.
    """
    with figure(path, 10.5, 8.5) as drawing:
        axes = drawing.subplots(3, 2)
        for column, (x, label) in enumerate((("batches", "batches"), ("time", "wall time (s)"))):
            _loss(axes[0][column], training, x)
            _validation(axes[1][column], validation, x)
            for row in (0, 1):
                axes[row][column].set_xlabel(label)
        _buffer(axes[2][0], training)
        _throughput(axes[2][1], training)
        for axis in axes.flat:
            axis.set_xlim(left=0)
    return path


def _column(lines: list[Line], key: str) -> NDArray[np.float64]:
    """Return one value of each line, NaN where it is missing or null."""
    values = (line.get(key) for line in lines)
    return np.array([np.nan if v is None else v for v in values], dtype=np.float64)


def _loss(axis: Axes, lines: list[Line], x: str) -> None:
    axis.set_title("Training loss (normalised units)")
    at, loss = _column(lines, x), _column(lines, "loss")
    kept = np.isfinite(loss) & (loss > 0)
    if not _any(axis, kept):
        return
    at, loss = at[kept], loss[kept]
    many = len(loss) > 20
    axis.plot(at, loss, color=BLUE, alpha=0.3 if many else 1.0, linewidth=0.8 if many else 1.4, label="last batch")
    if many:
        axis.plot(at, _smooth(np.log(loss), len(loss) // 20), color=BLUE, label="moving geometric mean")
        axis.legend()
    axis.set_yscale("log")


def _validation(axis: Axes, lines: list[Line], x: str) -> None:
    axis.set_title("Held-out relative L2 error")
    if not _any(axis, np.ones(len(lines), dtype=bool)):
        return
    at = _column(lines, x)
    style: dict[str, Any] = {"marker": "o", "markersize": 3} if len(lines) < 40 else {}
    mean, tail = _column(lines, "relative_l2"), _column(lines, "relative_l2_p99")
    axis.plot(at, mean, color="black", label=f"mean (last: {mean[-1]:.3g})", **style)
    axis.plot(at, tail, color=GREY, linestyle="--", label=f"99th percentile (last: {tail[-1]:.3g})", **style)
    fields = lines[-1].get("fields") or {}
    if len(fields) > 1:
        for name, colour in zip(fields, CYCLE * (len(fields) // len(CYCLE) + 1), strict=False):
            values = _column([(line.get("fields") or {}).get(name, {}) for line in lines], "relative_l2")
            axis.plot(at, values, color=colour, linewidth=1.0, label=name)
    axis.set_yscale("log")
    axis.legend(ncols=2)


def _buffer(axis: Axes, lines: list[Line]) -> None:
    axis.set_title("Samples in the buffer")
    axis.set_xlabel("wall time (s)")
    if not _any(axis, np.ones(len(lines), dtype=bool)):
        return
    at = _column(lines, "time")
    axis.fill_between(at, _column(lines, "buffer_population"), color=BLUE, alpha=0.25, linewidth=0, label="held")
    axis.plot(at, _column(lines, "buffer_population"), color=BLUE)
    axis.plot(at, _column(lines, "buffer_unseen"), color=ORANGE, label="not yet trained on")
    axis.set_ylim(bottom=0)
    axis.legend(loc="lower right")


def _throughput(axis: Axes, lines: list[Line]) -> None:
    axis.set_title("Samples per second")
    axis.set_xlabel("wall time (s)")
    if not _any(axis, np.ones(len(lines), dtype=bool)):
        return
    at = _column(lines, "time")
    axis.plot(at, _column(lines, "samples_per_second"), color=BLUE, label="trained on")
    received = _column(lines, "received")
    elapsed = np.diff(at)
    if np.any(elapsed > 0):
        rate = np.diff(received)[elapsed > 0] / elapsed[elapsed > 0]
        axis.step(at[1:][elapsed > 0], rate, where="pre", color=GREEN, linewidth=1.0, label="received")
    axis.set_ylim(bottom=0)
    axis.yaxis.set_major_formatter(EngFormatter(sep=""))
    axis.legend()


def _any(axis: Axes, kept: NDArray[np.bool_]) -> bool:
    if not kept.any():
        axis.text(0.5, 0.5, "none recorded", transform=axis.transAxes, ha="center", color=GREY)
        return False
    return True


def _smooth(logarithms: NDArray[np.float64], half: int) -> NDArray[np.float64]:
    """Return geometric means over a centred window of up to 2 half + 1 values, shorter at the ends."""
    sums = np.concatenate([[0.0], np.cumsum(logarithms)])
    number = np.arange(len(logarithms))
    first, last = np.maximum(number - half, 0), np.minimum(number + half + 1, len(logarithms))
    means: NDArray[np.float64] = np.exp((sums[last] - sums[first]) / (last - first))
    return means
