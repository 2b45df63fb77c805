"""Curves of bounded length from the lines of metrics.jsonl."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

MOST_POINTS = 1200  # a screen shows no more
SMOOTH = 0.15  # weight of the newest loss in the smoothed one, as soon as there are several

Line = Mapping[str, Any]


class Curve:
    """Columns of numbers with common x, which grow line by line.

    Of a long study every second point is dropped, again and again, so that a browser can draw the curve. Where training
    went back to a checkpoint, the points that are void are dropped.

    Args:
        of_line: makes the values of the columns from a line; `batches` must be among them.

    Attributes:
        columns: the values, by name; NaN where a line has none.
        rebuilt: how often points were dropped or columns came; what a browser holds is then void.
    """

    def __init__(self, of_line: Callable[[Line], Mapping[str, float]]) -> None:
        self._of_line = of_line
        self._stride, self._skipped = 1, 0
        self.columns: dict[str, list[float]] = {}
        self.rebuilt = 0

    def __len__(self) -> int:
        """Number of points."""
        return len(self.columns.get("batches", ()))

    def clear(self) -> None:
        """Drop all points."""
        self.columns, self._stride, self._skipped = {}, 1, 0
        self.rebuilt += 1

    def add(self, line: Line) -> None:
        """Add the point of a line."""
        values = self._of_line(line)
        self._go_back(values["batches"])
        self._skipped += 1
        if len(self) and self._skipped < self._stride:
            return
        self._skipped = 0
        number = len(self)
        for name in values.keys() - self.columns.keys():
            self.columns[name] = [math.nan] * number
            self.rebuilt += 1
        for name, column in self.columns.items():
            column.append(values.get(name, math.nan))
        if len(self) > MOST_POINTS:
            self._stride *= 2
            self._keep(slice(None, None, 2))

    def since(self, number: int) -> dict[str, list[float]]:
        """Return the points from `number` on."""
        return {name: column[number:] for name, column in self.columns.items()}

    def last(self, name: str) -> float:
        """Return the last value of a column; NaN where there is none."""
        column = self.columns.get(name)
        return column[-1] if column else math.nan

    def _go_back(self, batches: float) -> None:
        before = self.columns.get("batches", [])
        kept = len(before)
        while kept and before[kept - 1] > batches:
            kept -= 1
        if kept < len(before):
            self._keep(slice(0, kept))

    def _keep(self, places: slice) -> None:
        self.columns = {name: column[places] for name, column in self.columns.items()}
        self.rebuilt += 1


def number_in(line: Line, name: str) -> float:
    """Return a number of a line; NaN where it is missing or null."""
    value = line.get(name)
    return float(value) if isinstance(value, int | float) else math.nan


class TrainingCurve(Curve):
    """Loss, buffer and throughput from the "train" lines.

    Columns: `batches`; `time` (s); `loss` and `smooth_loss` (its moving geometric mean), in normalised units;
    `population` and `unseen` (samples); `trained` and `received` (samples/s).
    """

    def __init__(self) -> None:
        super().__init__(self._values)
        self._smooth, self._losses = math.nan, 0
        self._before = (math.nan, math.nan)  # time and samples received

    def clear(self) -> None:
        """Drop all points."""
        super().clear()
        self._smooth, self._losses, self._before = math.nan, 0, (math.nan, math.nan)

    def _values(self, line: Line) -> Mapping[str, float]:
        loss = number_in(line, "loss")
        if not loss > 0:
            loss = math.nan
        else:
            self._losses += 1
            weight = max(SMOOTH, 1 / self._losses)
            before = loss if math.isnan(self._smooth) else self._smooth
            self._smooth = math.exp((1 - weight) * math.log(before) + weight * math.log(loss))
        at, received = number_in(line, "time"), number_in(line, "received")
        elapsed, more = at - self._before[0], received - self._before[1]
        rate = more / elapsed if elapsed > 0 and more >= 0 else math.nan
        if not elapsed <= 0:
            self._before = (at, received)
        return {
            "batches": number_in(line, "batches"),
            "time": at,
            "loss": loss,
            "smooth_loss": self._smooth,
            "population": number_in(line, "buffer_population"),
            "unseen": number_in(line, "buffer_unseen"),
            "trained": number_in(line, "samples_per_second"),
            "received": rate,
        }


def validation_values(line: Line) -> Mapping[str, float]:
    """Make the columns of a "validation" line: `mean`, `p99`, and one for each field where there are several.

    The column of a field is `field_` and its name.
    """
    values = {
        "batches": number_in(line, "batches"),
        "time": number_in(line, "time"),
        "mean": number_in(line, "relative_l2"),
        "p99": number_in(line, "relative_l2_p99"),
    }
    fields = line.get("fields") or {}
    if len(fields) > 1:
        values |= {f"field_{name}": number_in(errors, "relative_l2") for name, errors in fields.items()}
    return values
