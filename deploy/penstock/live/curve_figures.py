"""The course of training: loss, held-out error, buffer and throughput."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from bokeh.models import Column, ColumnDataSource, Div, NumeralTickFormatter

from penstock.live.curves import Curve
from penstock.live.run_reader import RunReader
from penstock.live.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, from_zero, make_figure, place_legend

TRAINING = ("batches", "time", "loss", "smooth_loss", "population", "unseen", "trained", "received")
VALIDATION = ("batches", "time", "mean", "p99")
WAITING = {
    "loss": "The loss comes with the first batches.",
    "error": "The held-out error comes with the first validation ([training] validate_every).",
    "buffer": "",
    "throughput": "",
}
FIELD_COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY)


class CurveFigures:
    """Four figures, which take new points as they come. Each is drawn from its first point on.

    Attributes:
        roots: by the names of their places on the page.
    """

    def __init__(self) -> None:
        self._training = ColumnDataSource({name: [] for name in TRAINING}, name="training")
        self._validation = ColumnDataSource({name: [] for name in VALIDATION}, name="validation")
        self._shown: dict[str, tuple[int, int]] = {}  # rebuilt and number of points that the browser has
        self._error: Any = None
        self._fields: list[str] = []
        # What is drawn where, as soon as a column has a number.
        self._figures: dict[str, tuple[str, Callable[[], Any]]] = {
            "loss": ("loss", self._loss_figure),
            "error": ("mean", self._error_figure),
            "buffer": ("population", self._buffer_figure),
            "throughput": ("trained", self._throughput_figure),
        }
        self.roots = {
            name: Column(Div(text=text, sizing_mode="stretch_width"), name=name, sizing_mode="stretch_width")
            for name, text in WAITING.items()
        }

    def update(self, run: RunReader) -> None:
        """Send the points that are new."""
        self._send(self._training, run.training)
        self._send(self._validation, run.validation)
        for name, (column, make) in list(self._figures.items()):
            curve = run.validation if name == "error" else run.training
            if np.isfinite(curve.columns.get(column, [])).any():
                self.roots[name].children = [make()]
                del self._figures[name]
        if self._error is not None:
            self._draw_fields(run.validation)

    def _send(self, source: ColumnDataSource, curve: Curve) -> None:
        rebuilt, shown = self._shown.get(source.name, (-1, 0))
        if rebuilt == curve.rebuilt and len(curve) > shown:
            source.stream(_arrays(curve.since(shown)))
        elif rebuilt != curve.rebuilt and (curve.columns or shown):
            columns = curve.columns or {name: [] for name in source.data}
            source.data = _arrays(columns)
        self._shown[source.name] = (curve.rebuilt, len(curve))

    def _loss_figure(self) -> Any:
        made = make_figure("Training loss", "batches", "loss (normalised units)", y_axis_type="log")
        made.line("batches", "loss", source=self._training, color=BLUE, alpha=0.3, legend_label="last batch")
        made.line(
            "batches", "smooth_loss", source=self._training, color=BLUE, width=2, legend_label="moving geometric mean"
        )
        place_legend(made)
        return made

    def _error_figure(self) -> Any:
        made = make_figure("Held-out error", "batches", "relative L2 error", y_axis_type="log")
        style: dict[str, Any] = {"source": self._validation}
        made.line("batches", "mean", color="black", width=2, legend_label="mean", **style)
        made.scatter("batches", "mean", color="black", size=4, legend_label="mean", **style)
        made.line("batches", "p99", color=GREY, line_dash="dashed", legend_label="99th percentile", **style)
        place_legend(made)
        self._error = made
        return made

    def _draw_fields(self, curve: Curve) -> None:
        """Add a curve for each field, once there is one: fields are known from the first validation on."""
        names = [name for name in curve.columns if name.startswith("field_")]
        for number, name in enumerate(names):
            if name in self._fields:
                continue
            self._error.line(
                "batches",
                name,
                source=self._validation,
                color=FIELD_COLOURS[number % len(FIELD_COLOURS)],
                legend_label=name.removeprefix("field_"),
            )
            self._fields.append(name)

    def _buffer_figure(self) -> Any:
        made = make_figure("Buffer", "wall time (s)", "samples", y_range=from_zero())
        made.varea("time", 0, "population", source=self._training, color=BLUE, alpha=0.2, legend_label="held")
        made.line("time", "population", source=self._training, color=BLUE, width=2, legend_label="held")
        made.line("time", "unseen", source=self._training, color=ORANGE, width=2, legend_label="not yet trained on")
        made.yaxis.formatter = NumeralTickFormatter(format="0,0")
        place_legend(made, above=True)
        return made

    def _throughput_figure(self) -> Any:
        made = make_figure("Throughput", "wall time (s)", "samples/s", y_range=from_zero())
        made.line("time", "received", source=self._training, color=GREEN, legend_label="received")
        made.line("time", "trained", source=self._training, color=BLUE, width=2, legend_label="trained on")
        made.yaxis.formatter = NumeralTickFormatter(format="0,0")
        place_legend(made, above=True)
        return made


def _arrays(columns: dict[str, list[float]]) -> dict[str, Any]:
    return {name: np.array(values, dtype=np.float64) for name, values in columns.items()}
