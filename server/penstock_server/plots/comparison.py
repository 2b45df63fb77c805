"""Comparison of variants of training the same model: error, throughput, buffer, and how often samples were seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter

from penstock_server.plots.style import CYCLE, GREY, figure

Line = dict[str, Any]


def draw_comparison(
    runs: Mapping[str, Sequence[tuple[Sequence[Line], Sequence[Line], Mapping[str, int]]]], path: Path
) -> Path:
    """Plot all variants.

    Errors are means over the seeds, with a band from the smallest to the largest; all else is that of the first seed.

    Args:
        runs: variant to its runs, one for each seed: "train" lines and "validation" lines of metrics.jsonl, and times
            seen -> number of samples.
        path: PNG file to write.

    Returns:
        `path`.
    """
    with figure(path, 10.5, 9.0) as drawing:
        axes = drawing.subplots(3, 2)
        for number, (variant, seeds) in enumerate(runs.items()):
            colour = CYCLE[number % len(CYCLE)]
            style = "--" if variant.startswith("offline") else "-"
            validations = [validation for _, validation, _ in seeds]
            _error(axes[0][0], validations, "batches", variant, colour, style)
            _error(axes[0][1], validations, "time", variant, colour, style)
            train, _, times_seen = seeds[0]
            at = [line["time"] for line in train]
            axes[1][0].plot(at, [line["samples_per_second"] for line in train], color=colour, linestyle=style)
            axes[1][1].plot(at, [line["buffer_population"] for line in train], color=colour, linestyle=style)
            _times_seen(axes[2][0], times_seen, colour, style)
            _rollout(axes[2][1], validations, colour, style)
        _titles(axes)
        if not axes[2][1].lines:
            axes[2][1].text(
                0.5, 0.5, "none: single time steps", transform=axes[2][1].transAxes, ha="center", color=GREY
            )
        drawing.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return path


def _error(axis: Axes, seeds: Sequence[Sequence[Line]], x: str, label: str, colour: str, style: str) -> None:
    number = min(len(lines) for lines in seeds)
    errors = np.array([[line["relative_l2"] for line in lines[:number]] for lines in seeds])
    at = np.mean([[line[x] for line in lines[:number]] for lines in seeds], axis=0)
    axis.fill_between(at, errors.min(axis=0), errors.max(axis=0), color=colour, alpha=0.15, linewidth=0)
    axis.plot(at, errors.mean(axis=0), color=colour, linestyle=style, label=label)


def _times_seen(axis: Axes, times_seen: Mapping[str, int], colour: str, style: str) -> None:
    times = np.array([int(k) for k in times_seen], dtype=float)
    numbers = np.array(list(times_seen.values()), dtype=float)
    axis.plot(times, numbers / numbers.sum(), color=colour, linestyle=style, marker="o", markersize=2)


def _rollout(axis: Axes, seeds: Sequence[Sequence[Line]], colour: str, style: str) -> None:
    last = [lines[-1]["rollout"] for lines in seeds]
    if all(last):
        by_step = np.array([rollout["relative_l2_by_step"] for rollout in last])
        axis.plot(last[0]["steps"], by_step.mean(axis=0), color=colour, linestyle=style)


def _titles(axes: Any) -> None:
    said = (
        ("Held-out relative L2 error", "batches"),
        ("Held-out relative L2 error", "wall time (s)"),
        ("Samples trained on per second", "wall time (s)"),
        ("Samples held", "wall time (s)"),
        ("How often samples were seen (share of samples)", "times seen"),
        ("Rollout error at the end", "time step"),
    )
    for axis, (title, label) in zip(axes.flat, said, strict=True):
        axis.set_title(title)
        axis.set_xlabel(label)
    for place in ((0, 0), (0, 1), (2, 1)):
        axes[place].set_yscale("log")
    for place in ((1, 0), (1, 1)):
        axes[place].set_ylim(bottom=0)
        axes[place].yaxis.set_major_formatter(EngFormatter(sep=""))
    axes[2, 0].set_xscale("symlog")
