"""The newest held-out fields: what the solver gave, what the surrogate predicts, and the difference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from bokeh.layouts import row
from bokeh.models import (
    BasicTicker,
    ColorBar,
    Column,
    ColumnDataSource,
    DataRange1d,
    Div,
    LinearColorMapper,
    Select,
    Slider,
)
from numpy.typing import NDArray

from penstock.live.raster import Raster, Shown, how_to_show
from penstock.live.run_reader import RunReader
from penstock.live.style import BLUE, ORANGE, RED, SIGNED, UNSIGNED, VALUES, make_figure, place_legend
from penstock_server.plots.magnitude import magnitude
from penstock_server.telemetry.snapshots import Snapshot, Snapshots

PLACES = ("field_true", "field_prediction", "field_error")
WAITING = "The first held-out fields come with the first validation ([training] validate_every)."


@dataclass(frozen=True)
class Scales:
    """Colours of one field of one simulation, the same for all its time steps.

    Attributes:
        values: least and most of the true field.
        error: most of the difference.
    """

    values: tuple[float, float]
    error: float


class FieldFigures:
    """A field of a held-out simulation at a time that the slider chooses.

    Attributes:
        roots: by the names of their places on the page.
    """

    def __init__(self) -> None:
        self._seen = -1
        self._run: RunReader | None = None
        self._about = Div(text=WAITING, sizing_mode="stretch_width")
        self._simulation = Select(title="held-out simulation", width=170)
        self._field = Select(title="field", width=170)
        self._time = Slider(
            title="time", start=0, end=1, value=1, step=1, show_value=False, sizing_mode="stretch_width"
        )
        self._time.name = "time"
        for model in (self._simulation, self._field, self._time):
            model.on_change("value", lambda _attribute, _old, _new: self._draw())
        self._sources: dict[str, ColumnDataSource] = {}
        self._mappers = {"values": LinearColorMapper(palette=VALUES), "error": LinearColorMapper(palette=SIGNED)}
        for mapper in self._mappers.values():
            mapper.nan_color = "rgba(0, 0, 0, 0)"
        self._figures: dict[str, Any] = {}
        self._shown: tuple[Any, ...] = ()  # what the figures were made for
        self._layouts: dict[tuple[Any, ...], Shown] = {}  # by shape and version of the mesh: some take a second
        self.roots = {"field_controls": Column(self._about, sizing_mode="stretch_width", name="field_controls")}
        self.roots |= {place: Column(sizing_mode="stretch_width", name=place) for place in PLACES}

    def update(self, run: RunReader) -> None:
        """Draw pictures that are new."""
        self._run = run
        if run.changes["pictures"] == self._seen or run.pictures is None or not run.pictures.items:
            return
        self._seen = run.changes["pictures"]
        self._offer(run.pictures)
        self._draw()

    def _offer(self, pictures: Snapshots) -> None:
        """Offer simulations, fields and times; keep what is chosen."""
        simulations = [str(number) for number in dict.fromkeys(item.simulation for item in pictures.items)]
        for select, options in ((self._simulation, simulations), (self._field, list(pictures.items[0].true))):
            if select.options != options:
                select.options = options
            if select.value not in options:
                select.value = options[0]
        if len(self.roots["field_controls"].children) == 1:
            chosen = row(self._simulation, self._field, sizing_mode="stretch_width", styles={"flex-wrap": "wrap"})
            self.roots["field_controls"].children = [self._about, chosen, self._time]
            last = len(self._of_simulation(pictures)) - 1
            self._time.update(end=max(1, last), value=max(1, last))

    def _of_simulation(self, pictures: Snapshots) -> list[Snapshot]:
        return [item for item in pictures.items if str(item.simulation) == self._simulation.value]

    def _draw(self) -> None:
        pictures = None if self._run is None else self._run.pictures
        items = [] if pictures is None else self._of_simulation(pictures)
        name = self._field.value
        if self._run is None or pictures is None or not items or name not in items[0].true:
            return
        last = len(items) - 1
        if self._time.end != max(1, last):
            at_end = self._time.value >= self._time.end
            value = max(1, last) if at_end else min(self._time.value, max(1, last))
            self._time.update(end=max(1, last), value=value)
        item = items[min(last, int(self._time.value))]
        self._time.title = f"time {item.inputs['time']:g} (time step {item.step})"
        true, prediction = item.true[name], item.prediction[name]
        scales = _scales(items, name)
        self._mappers["values"].update(low=scales.values[0], high=scales.values[1])
        vector = true.shape[-1] > 1
        self._mappers["error"].update(low=0.0 if vector else -scales.error, high=scales.error)
        how, new = self._layout(true, name, item.references.get(name, 0.0))
        data = _data(how, magnitude(true), magnitude(prediction), _difference(true, prediction))
        difference = f"Difference{_relative(true, prediction)}"
        if new:
            what = _label(name, true, item.references.get(name, 0.0))
            self._make(how, data, true.shape[-1] > 1, (f"Solver: {what}", f"Surrogate: {what}", difference))
        else:
            for place, columns in data.items():
                self._sources[place].data = columns
            self._figures["field_error"].title.text = difference
        point = ", ".join(f"{k} = {v:.4g}" for k, v in list(item.inputs.items())[:6] if k != "time")
        self._about.text = f"After {pictures.batches:,} batches, at {point}"

    def _layout(self, true: NDArray[Any], name: str, reference: float) -> tuple[Shown, bool]:
        """Return how to show a field, and whether the figures that are there show another field or mesh."""
        assert self._run is not None
        mesh = (true.shape[:-1], self._run.changes["mesh"])
        if mesh not in self._layouts:
            self._layouts = {mesh: how_to_show(true.shape[:-1], self._run.centres)}
        made_for = (name, true.shape, reference, *mesh)
        new, self._shown = made_for != self._shown, made_for
        return self._layouts[mesh], new

    def _make(self, how: Shown, data: dict[str, dict[str, Any]], vector: bool, titles: tuple[str, str, str]) -> None:
        """Make the figures, with data and titles: a browser cannot draw a picture without pixels."""
        self._sources = {place: ColumnDataSource(columns, name=f"values_{place}") for place, columns in data.items()}
        self._mappers["error"].palette = UNSIGNED if vector else SIGNED
        if isinstance(how, Raster):
            self._figures = {p: self._picture(p, title, how) for p, title in zip(PLACES, titles, strict=True)}
        else:
            self._figures = self._line_figures(titles)
        for place in PLACES:
            self.roots[place].children = [self._figures[place]] if place in self._figures else []

    def _picture(self, place: str, title: str, how: Raster) -> Any:
        ratio = how.size[1] / how.size[0]
        made = make_figure(
            title,
            how.axes[0] + (f" ({how.note})" if how.note else ""),
            how.axes[1],
            height=round(min(460.0, max(200.0, 300 * ratio + 110))),
            tools="pan,box_zoom,reset",
            match_aspect=True,
            x_range=DataRange1d(range_padding=0),
            y_range=DataRange1d(range_padding=0),
        )
        made.grid.visible = False
        mapper = self._mappers["error" if place == "field_error" else "values"]
        made.image("image", "x", "y", "dw", "dh", source=self._sources[place], color_mapper=mapper)
        bar = ColorBar(color_mapper=mapper, height=10, ticker=BasicTicker(desired_num_ticks=5))
        made.add_layout(bar, "below")
        return made

    def _line_figures(self, titles: tuple[str, str, str]) -> dict[str, Any]:
        what = titles[0].removeprefix("Solver: ")
        both = make_figure(f"{what}: solver and surrogate", "coordinate or number of the point", what)
        source = self._sources["field_true"]
        both.line("x", "true", source=source, color=BLUE, width=2, legend_label="solver")
        both.line("x", "prediction", source=source, color=ORANGE, line_dash="dashed", width=2, legend_label="surrogate")
        place_legend(both)
        error = make_figure(titles[2], "coordinate or number of the point", "difference")
        error.line("x", "error", source=self._sources["field_error"], color=RED)
        return {"field_true": both, "field_error": error}


def _data(how: Shown, true: Any, prediction: Any, error: Any) -> dict[str, dict[str, Any]]:
    """Return the columns for each place on the page."""
    if isinstance(how, Raster):
        where = {"x": [how.corner[0]], "y": [how.corner[1]], "dw": [how.size[0]], "dh": [how.size[1]]}
        pictures = zip(PLACES, (true, prediction, error), strict=True)
        return {place: {"image": [how.pixels(values)], **where} for place, values in pictures}
    x = np.asarray(how.x, dtype=np.float64)
    return {
        "field_true": {"x": x, "true": how.values(true), "prediction": how.values(prediction)},
        "field_error": {"x": x, "error": how.values(error)},
    }


def _label(name: str, true: NDArray[Any], reference: float) -> str:
    what = f"{name} {'-' if reference > 0 else '+'} {abs(reference):.12g}" if reference else name
    return f"{what}, magnitude" if true.shape[-1] > 1 else what


def _difference(true: NDArray[Any], prediction: NDArray[Any]) -> NDArray[np.float64]:
    """Return prediction - true of a scalar, the magnitude of the difference of a vector, (points,)."""
    difference = prediction.astype(np.float64) - true
    return difference.reshape(-1) if true.shape[-1] == 1 else magnitude(difference)


def _scales(items: list[Snapshot], name: str) -> Scales:
    low = min(float(np.nanmin(magnitude(item.true[name]))) for item in items)
    high = max(float(np.nanmax(magnitude(item.true[name]))) for item in items)
    error = max(float(np.nanmax(np.abs(_difference(item.true[name], item.prediction[name])))) for item in items)
    return Scales((low, high if high > low else low + 1.0), error if 0 < error < np.inf else 1.0)


def _relative(true: NDArray[Any], prediction: NDArray[Any]) -> str:
    norm = float(np.linalg.norm(true.astype(np.float64)))
    return f": relative L2 {np.linalg.norm(prediction.astype(np.float64) - true) / norm:.3g}" if norm > 0 else ""
