"""Things measured in turn, and their ratios.

The speed of a machine changes while a benchmark runs. So every round measures each thing once, directly after the one
before, and a ratio is taken within a round. What is reported is the median of the rounds and the lowest and highest.
"""

from __future__ import annotations

import statistics
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

OURS = "Penstock"
Figures = Mapping[str, float]
"""What one measurement found, by the name of the figure with its unit, such as "samples/s"."""


class CannotRun(Exception):
    """This machine lacks something that a measurement needs. The message is one line."""


@dataclass(frozen=True)
class Spread:
    """The median, the lowest and the highest of some numbers."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Return the spread of at least one number."""
        numbers = sorted(values)
        return cls(statistics.median(numbers), numbers[0], numbers[-1])


@dataclass
class Turns:
    """What some rounds found.

    Attributes:
        found: figures of each thing, one entry a round. A thing that failed in one round is left out of all.
        missing: why each of the others could not be measured, in one line.
    """

    found: dict[str, list[Figures]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def values(self, thing: str, figure: str) -> list[float]:
        """Return one figure of a thing, a number for each round; empty where it was not measured."""
        return [figures[figure] for figures in self.found.get(thing, []) if figure in figures]

    def ratios(self, thing: str, other: str, figure: str) -> list[float]:
        """Return the ratios of two things, one for each round; empty where one of them was not measured."""
        both = zip(self.values(thing, figure), self.values(other, figure), strict=False)
        return [ours / theirs for ours, theirs in both if theirs]


def in_turn(things: Mapping[str, Callable[[], Figures]], rounds: int) -> Turns:
    """Measure things one after the other, several times over.

    Every second round goes backwards, so that nothing always comes after the same.

    Args:
        things: the measurements, by name.
        rounds: how often each is made.

    Returns:
        What was found. A measurement that fails is not tried again, and the others go on.
    """
    turns = Turns()
    for number in range(rounds):
        for name in list(things)[:: -1 if number % 2 else 1]:
            if name in turns.missing:
                continue
            try:
                figures = things[name]()
            except CannotRun as reason:
                turns.missing[name] = str(reason)
            except Exception as error:
                traceback.print_exc(file=sys.stderr)
                turns.missing[name] = f"{type(error).__name__}: {one_line(str(error))}"
            else:
                turns.found.setdefault(name, []).append(figures)
    for name in turns.missing:
        turns.found.pop(name, None)
    return turns


def one_line(text: str) -> str:
    """Return the last line of a text that is not empty, cut to 200 characters."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no message"


@dataclass(frozen=True)
class Row:
    """A figure of one case: Penstock's, the other things', and the ratios.

    Attributes:
        group: "ingest", "end to end" and so on.
        case: what was measured, such as "40 KB, 4 producers, same node".
        figure: name with unit, such as "samples/s".
        better: whether "more" or "less" of it is better.
        values: of each thing, one number for each round.
        ratios: Penstock's over each other thing's, one number for each round.
        missing: why other things, or Penstock itself, were not measured.
        wanted: bounds on the medians of the ratios, by the other thing's name, and on Penstock's own median by "".
            They are lower bounds where more is better, else upper bounds.
    """

    group: str
    case: str
    figure: str
    better: Literal["more", "less"]
    values: dict[str, list[float]]
    ratios: dict[str, list[float]]
    missing: dict[str, str] = field(default_factory=dict)
    wanted: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        group: str,
        case: str,
        figure: str,
        turns: Turns,
        better: Literal["more", "less"] = "more",
        wanted: Mapping[str, float] | None = None,
        ours: str = OURS,
    ) -> Row:
        """Make the row of a figure from what the rounds found; see the attributes. ours: the name of Penstock's own."""
        names = [ours, *(name for name in (*turns.found, *turns.missing) if name != ours)]
        values = {name: turns.values(name, figure) for name in names}
        ratios = {name: turns.ratios(ours, name, figure) for name in names if name != ours}
        return cls(
            group,
            case,
            figure,
            better,
            {name: numbers for name, numbers in values.items() if numbers},
            {name: numbers for name, numbers in ratios.items() if numbers},
            dict(turns.missing),
            dict(wanted or {}),
        )

    @property
    def ours(self) -> str:
        """The name of Penstock's own value: the one that the ratios are of."""
        return next((name for name in self.values if name not in self.ratios), OURS)

    def reaches(self, other: str) -> bool | None:
        """Return whether a bound is kept; None where there is none, or nothing was measured."""
        numbers = self.ratios.get(other) if other else self.values.get(self.ours)
        if other not in self.wanted or not numbers:
            return None
        median, bound = statistics.median(numbers), self.wanted[other]
        return median >= bound if self.better == "more" else median <= bound

    def as_json(self) -> dict[str, Any]:
        """Return the row for a JSON file, with the medians beside the numbers of the rounds."""
        medians = {
            "medians": {name: statistics.median(numbers) for name, numbers in self.values.items()},
            "ratio_medians": {name: statistics.median(numbers) for name, numbers in self.ratios.items()},
        }
        return {**asdict(self), **medians}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Row:
        """Make a row from the entry of a JSON file."""
        return cls(**{name: entry[name] for name in cls.__dataclass_fields__})


def absent(group: str, module: str, reason: str) -> Row:
    """Return the row of a module of a group that could not run at all."""
    return Row(group.replace("-", " "), module.replace("_", " "), "", "more", {}, {}, {OURS: reason})
