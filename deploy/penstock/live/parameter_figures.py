"""The simulations in the parameter space, coloured by state and by error."""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import Any

import numpy as np
from bokeh.layouts import row
from bokeh.models import (
    ColorBar,
    Column,
    ColumnDataSource,
    Div,
    FixedTicker,
    HoverTool,
    LogColorMapper,
    Range1d,
    Select,
)

from penstock.live.run_reader import RunReader
from penstock.live.simulations import Points
from penstock.live.style import GREY, LINES, STATE_COLOURS, VALUES, make_figure

MOST_DOTS = 2000
MOST_LINES = 250  # of parallel coordinates
MOST_AXES = 8
NUMBER = "number of the simulation"
_KINDS = ("training", "held_out")


class ParameterFigures:
    """Dots over two chosen parameters; with more than two, also a line for each simulation over all of them.

    Attributes:
        root: what stands on the page; empty until there is a study.
    """

    def __init__(self) -> None:
        self.root = Column(name="parameters", sizing_mode="stretch_width")
        self._changes = (-1, -1)
        self._mapper = LogColorMapper(palette=VALUES, low=1e-3, high=1.0, nan_color="#FFFFFF")
        self._dots = {kind: ColumnDataSource(name=f"dots_{kind}") for kind in _KINDS}
        self._lines = {kind: ColumnDataSource(name=f"lines_{kind}") for kind in _KINDS}
        self._chosen = [Select(title="horizontal", width=170), Select(title="vertical", width=170)]
        for select in self._chosen:
            select.on_change("value", lambda _attribute, _old, _new: self._choose())
        self._legend = Div(sizing_mode="stretch_width")
        self._scatter: Any = None
        self._run: RunReader | None = None

    def update(self, run: RunReader) -> None:
        """Draw what has changed."""
        self._run = run
        changes = (run.changes["study"], run.changes["states"])
        if changes == self._changes or run.points is None:
            return
        new, self._changes = changes[0] != self._changes[0], changes
        if new:
            self._offer(run.points)
        self._fill(run, run.points)
        if new:  # last, since a browser complains of figures without data
            self._make(run.points)

    def _offer(self, points: Points) -> None:
        """Offer the parameters of a study; keep what is chosen."""
        names = [*points.names, NUMBER]
        for select, name in zip(self._chosen, names, strict=False):
            select.options = names
            if select.value not in names:
                select.value = name

    def _make(self, points: Points) -> None:
        """Make the figures for the parameters of a study."""
        if points.problem:
            self.root.children = [Div(text=escape(points.problem), sizing_mode="stretch_width"), self._legend]
            return
        self._scatter = self._scatter_figure(points)
        chosen = [row(*self._chosen, sizing_mode="stretch_width", styles={"flex-wrap": "wrap"})]
        parallel = [self._parallel_figure(points)] if len(points.names) > 2 else []
        self.root.children = [
            self._legend,
            *(chosen if len(points.names) > 2 else []),
            self._scatter,
            *parallel,
        ]

    def _scatter_figure(self, points: Points) -> Any:
        x, y = (select.value for select in self._chosen)
        made = make_figure(
            "Simulations in the parameter space",
            x,
            y,
            height=340,
            x_range=Range1d(*_bounds(points, x)),
            y_range=Range1d(*_bounds(points, y)),
        )
        drawn = []
        for kind in _KINDS:
            style: dict[str, Any] = {"fill_color": "colour", "line_color": "colour", "marker": "marker", "size": 7}
            if kind == "held_out":
                error = {"field": "error", "transform": self._mapper}
                style = {"fill_color": error, "line_color": "colour", "marker": "square", "size": 11, "line_width": 1.5}
            drawn.append(made.scatter("x", "y", source=self._dots[kind], fill_alpha=0.8, **style))
        texts = [("simulation", "@id"), ("state", "@state"), ("held-out error", "@shown_error"), ("point", "@point")]
        made.add_tools(HoverTool(renderers=drawn, tooltips=texts))
        bar = ColorBar(color_mapper=self._mapper, title="relative L2 error of held-out simulations", height=10)
        bar.title_text_font_style = "normal"
        made.add_layout(bar, "below")
        return made

    def _parallel_figure(self, points: Points) -> Any:
        names = points.names[:MOST_AXES]
        left_out = f", first {MOST_AXES} of {len(points.names)} parameters" if len(points.names) > MOST_AXES else ""
        made = make_figure(
            f"A line for each simulation{left_out}",
            "parameter, with its bounds",
            "from the lower bound to the upper",
            height=300,
            tools="reset",
            x_range=Range1d(-0.2, len(names) - 0.8),
            y_range=Range1d(-0.05, 1.05),
        )
        made.yaxis.ticker = FixedTicker(ticks=[0.0, 0.5, 1.0])
        made.ygrid.visible = False
        made.xgrid.grid_line_color = GREY
        made.xaxis.ticker = FixedTicker(ticks=list(range(len(names))))
        made.xaxis.major_label_overrides = {
            place: f"{name}\n{points.low[place]:.4g} to {points.high[place]:.4g}" for place, name in enumerate(names)
        }
        made.multi_line("xs", "ys", source=self._lines["training"], line_color="colour", line_alpha=0.35)
        error = {"field": "error", "transform": self._mapper}
        made.multi_line("xs", "ys", source=self._lines["held_out"], line_color="colour", line_width=4)
        made.multi_line("xs", "ys", source=self._lines["held_out"], line_color=error, line_width=2.5)
        made.xgrid.grid_line_color = LINES
        return made

    def _choose(self) -> None:
        if self._run is not None and self._run.points is not None and self._scatter is not None:
            for select, axis, bounds in zip(
                self._chosen,
                (self._scatter.xaxis, self._scatter.yaxis),
                (self._scatter.x_range, self._scatter.y_range),
                strict=True,
            ):
                axis.axis_label = select.value
                low, high = _bounds(self._run.points, select.value)
                bounds.update(start=low, end=high, reset_start=low, reset_end=high)
            self._fill(self._run, self._run.points)

    def _fill(self, run: RunReader, points: Points) -> None:
        states, errors = run.states(), {} if run.pictures is None else run.pictures.errors
        total, drawn = _drawn(points, states)
        self._legend.text = _legend(states, total, sum(map(len, drawn.values())))
        if points.problem:
            return
        if errors:
            known = [error for error in errors.values() if error > 0] or [1e-3]
            low, high = min(known), max(known)
            self._mapper.update(low=low * 0.95, high=max(high * 1.05, low * 1.5))
        for kind in _KINDS:
            ids = drawn[kind]
            _set(self._dots[kind], self._dots_of(points, ids, states, errors))
            if len(points.names) > 2:
                begun = [number for number in ids if states.get(number, "waiting") != "waiting"]
                _set(self._lines[kind], _lines_of(points, begun[-MOST_LINES:], states, errors))

    def _dots_of(
        self, points: Points, ids: list[int], states: dict[int, str], errors: dict[int, float]
    ) -> dict[str, Any]:
        state = [states.get(number, "waiting") for number in ids]
        return {
            "id": np.array(ids, dtype=np.int32),
            "x": self._coordinate(points, ids, self._chosen[0].value),
            "y": self._coordinate(points, ids, self._chosen[1].value),
            "state": state,
            "colour": [STATE_COLOURS[s] for s in state],
            "marker": ["x" if s == "failed" else "circle" for s in state],
            "error": np.array([errors.get(number, np.nan) for number in ids]),
            "shown_error": [f"{errors[number]:.3g}" if number in errors else "-" for number in ids],
            "point": [
                ", ".join(f"{name} = {v:.4g}" for name, v in zip(points.names[:MOST_AXES], values, strict=False))
                for values in points.values[ids]
            ],
        }

    def _coordinate(self, points: Points, ids: list[int], name: str) -> Any:
        if name == NUMBER:
            return np.array(ids, dtype=np.float64)
        return points.values[ids, points.names.index(name)]


def _bounds(points: Points, name: str) -> tuple[float, float]:
    """Return where an axis begins and ends: a little outside of the bounds of its parameter."""
    if name == NUMBER:
        low, high = 0.0, float(max(1, len(points.values) - 1))
    else:
        place = points.names.index(name)
        low, high = float(points.low[place]), float(points.high[place])
    margin = 0.04 * (high - low)
    return low - margin, high + margin


def _drawn(points: Points, states: dict[int, str]) -> tuple[int, dict[str, list[int]]]:
    """Return how many simulations there are, and the ids of those to draw: of many, those around the last that began.

    A spare point counts once it replaces a simulation. Of a recording, those count that the study uses.
    """
    further = sorted(number for number in states if points.planned <= number < len(points.values))
    held_out = points.held_out[: points.planned]
    training = np.flatnonzero(~held_out)
    if len(training) > MOST_DOTS:
        begun = int(
            np.searchsorted(training, max((n for n in states if n < points.planned and not held_out[n]), default=0))
        )
        first = min(max(0, begun - MOST_DOTS * 3 // 4), len(training) - MOST_DOTS)
        training = training[first : first + MOST_DOTS]
    drawn = {
        "training": [*training.tolist(), *(n for n in further if not points.held_out[n])],
        "held_out": [*np.flatnonzero(held_out).tolist(), *(n for n in further if points.held_out[n])],
    }
    return points.planned + len(further), {kind: ids[-MOST_DOTS:] for kind, ids in drawn.items()}


def _lines_of(points: Points, ids: list[int], states: dict[int, str], errors: dict[int, float]) -> dict[str, Any]:
    number = min(MOST_AXES, len(points.names))
    scaled = (points.values[ids, :number] - points.low[:number]) / (points.high[:number] - points.low[:number])
    return {
        "xs": [list(range(number)) for _ in ids],
        "ys": scaled.round(4).tolist(),
        "colour": [STATE_COLOURS[states.get(i, "waiting")] for i in ids],
        "error": np.array([errors.get(i, np.nan) for i in ids]),
    }


def _set(source: ColumnDataSource, data: dict[str, Any]) -> None:
    """Give a source its data, as a change of single values where that is less to send."""
    before = source.data
    length = len(next(iter(data.values())))
    if not before or "id" not in data or list(before.get("id", ())) != list(data["id"]):
        source.data = data
        return
    changes = {
        name: [(place, _plain(values[place])) for place in range(length) if not _same(values[place], old[place])]
        for name, values, old in ((name, values, before[name]) for name, values in data.items())
    }
    changes = {name: changed for name, changed in changes.items() if changed}
    if sum(map(len, changes.values())) > length:
        source.data = data
    elif changes:
        source.patch(changes)


def _same(new: Any, old: Any) -> bool:
    return bool(new == old) or (new != new and old != old)  # NaN


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _legend(states: dict[int, str], total: int, drawn: int) -> str:
    counts = Counter(states.values())
    counts["waiting"] = total - sum(counts[state] for state in STATE_COLOURS if state != "waiting")
    parts = [
        f'<span style="white-space:nowrap"><b style="color:{STATE_COLOURS[state]}">'
        f"{'✕' if state == 'failed' else '●'}</b> {state} {counts[state]}</span>"
        for state in STATE_COLOURS
    ]
    squares = '<span style="white-space:nowrap"><b>■</b> held out, filled by error</span>'
    cut = f"<span>{drawn} of {total} are drawn.</span>" if drawn < total else ""
    return f'<div style="display:flex;flex-wrap:wrap;gap:4px 14px">{"".join(parts)}{squares}{cut}</div>'
