"""The points of the parameter space at which simulations run."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator, model_validator

from penstock_server.study.section import Section


class ParametersSection(Section):
    """[parameters]: every key but `sampler` and `file` is a parameter.

    name = [low, high]: a number. name = { bounds = [low, high], size = n }: a large parameter, n numbers name_0, name_1, ....
    name = "seed": a random field's seed, an integer below 2**32; solvers get it like any parameter, models do not, since as a
    number it says nothing: the field that it stands for reaches them as the first time steps.
    sampler: how points are chosen (scipy.stats.qmc); `file`: a CSV whose header names the parameters, for sampler "file".
    """

    sampler: Literal["uniform", "sobol", "halton", "latin-hypercube", "grid", "file"] = "sobol"
    file: str | None = None
    bounds: dict[str, tuple[float, float]] = {}
    seeds: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """What a solver is told: numbers in the order of the study file, then seeds."""
        return (*self.bounds, *self.seeds)

    @model_validator(mode="before")
    @classmethod
    def _gather_bounds(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "bounds" in data:
            return data
        own = {k: v for k, v in data.items() if k in ("sampler", "file")}
        bounds: dict[str, Any] = {}
        for name, value in data.items():
            if name in own or value == "seed":
                continue
            if isinstance(value, dict):
                size = value.get("size")
                if value.keys() != {"bounds", "size"} or not isinstance(size, int) or size < 1:
                    raise ValueError(
                        f'{name} = {value}: expected {{ bounds = [low, high], size = n }}, [low, high] or "seed"'
                    )
                bounds |= {f"{name}_{i}": value["bounds"] for i in range(size)}
            else:
                bounds[name] = value
        return {**own, "bounds": bounds, "seeds": [k for k, v in data.items() if v == "seed"]}

    @field_validator("bounds")
    @classmethod
    def _ordered(cls, bounds: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        for name, (low, high) in bounds.items():
            if not low < high:
                raise ValueError(f"{name} = [{low:g}, {high:g}]: expected [low, high] with low < high; swap them")
        return bounds

    @model_validator(mode="after")
    def _usable(self) -> ParametersSection:
        if not self.names:
            raise ValueError("no parameter is given: expected at least one, such as viscosity = [0.005, 0.02]")
        for name in self.names:
            if not name.isidentifier():
                raise ValueError(f"{name!r} is not a usable parameter name: letters, digits and _ only")
        if (self.sampler == "file") != (self.file is not None):
            raise ValueError('sampler = "file" and file = "points.csv" go together; give both or neither')
        return self


Points = NDArray[np.float64]
MAX_SEED = 2**32 - 1
_SEQUENCES = ("uniform", "sobol", "halton")


class ParameterSpace:
    """The box of a study's parameters, and how points in it are chosen.

    names: the parameters, in the order of the study file and seeds last; the columns of every array of points.
    low, high: bounds, (n,) float64; a seed is an integer from 0 to 2**32 - 1.
    """

    def __init__(self, section: ParametersSection, directory: str | Path = ".") -> None:
        """directory: where a relative `file` starts, the study file's folder."""
        self.names = section.names
        self.seeds = len(section.seeds)
        bounds = [*section.bounds.values(), *(self.seeds * [(0.0, MAX_SEED)])]
        self.low: Points = np.array([low for low, _ in bounds], dtype=np.float64)
        self.high: Points = np.array([high for _, high in bounds], dtype=np.float64)
        self.sampler = section.sampler
        self.file = None if section.file is None else Path(directory) / section.file

    def draw(self, number: int, seed: int, validation: bool = False, *, training: int = 0) -> Points:
        """`number` points (number, n) float64 within the bounds, the same for the same arguments.

        uniform, sobol (scrambled) and halton (scrambled): the first k points of a larger draw are those of a draw of k.
        latin-hypercube: one point in each of `number` slices of every parameter. grid: equally spaced levels, bounds included,
        as many for each parameter as make a grid of at least `number` points, evenly thinned to `number`.
        file: the rows of the CSV file in order.

        validation: held-out points, from a random stream of their own; for "grid" uniform, so that they lie off it;
        for "file" the rows after the first `training` ones.

        Raises ValueError for a file that does not serve, naming the line and what was expected.
        """
        if number < 0:
            raise ValueError(f"{number} points of the parameter space: expected 0 or more")
        if self.file is not None:
            return self._from_file(self.file, skip=training if validation else 0, number=number)
        if number == 0:
            return np.empty((0, len(self.names)))
        numbers = len(self.names) - self.seeds
        points = np.empty((number, len(self.names)))
        if numbers:
            sequence = np.random.SeedSequence(seed, spawn_key=(int(validation),))
            low, high = self.low[:numbers], self.high[:numbers]
            # Rounding may carry low + (high - low) past high.
            points[:, :numbers] = np.clip(
                low + self._unit(number, numbers, sequence, validation) * (high - low), low, high
            )
        # A stream of their own, so that a seed parameter more leaves the other parameters as they were.
        seeds = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(int(validation), 1)))
        points[:, numbers:] = seeds.integers(0, MAX_SEED, size=(number, self.seeds), endpoint=True)
        return points

    def further(self, number: int, seed: int, *, training: int) -> Points:
        """`number` points (number, n) more, which follow the `training` points of `draw` in the same sequence.

        Raises ValueError for a sampler whose points are no sequence that goes on.
        """
        if self.sampler not in _SEQUENCES:
            raise ValueError(
                f'[solver] on_failure = "redraw" with [parameters] sampler = "{self.sampler}", whose points are a closed set: expected a '
                'sampler that can go on, one of "sobol", "halton" and "uniform"; set one of these, or on_failure = "drop"'
            )
        return self.draw(training + number, seed)[training:]

    def named(self, point: Points) -> dict[str, float]:
        """One point (n,) as parameters by name, as a solver takes them."""
        return dict(zip(self.names, point.tolist(), strict=True))

    def outside(self, values: Mapping[str, float]) -> list[str]:
        """The parameters whose value is not within its bounds, NaN included, in the order of `names`.

        ValueError unless `values` names exactly the parameters of this space.
        """
        if values.keys() != set(self.names):
            raise ValueError(f"parameters {', '.join(values) or 'none'}: expected {', '.join(self.names)}")
        bounds = zip(self.names, self.low, self.high, strict=True)
        return [name for name, low, high in bounds if not low <= values[name] <= high]

    def _unit(self, number: int, n: int, seed: np.random.SeedSequence, validation: bool) -> Points:
        """Points (number, n) in the unit cube."""
        from scipy.stats import qmc  # here: it takes most of a second, which trainer ranks need not wait for

        rng = np.random.default_rng(seed)
        sampler = "uniform" if self.sampler == "grid" and validation else self.sampler
        points: Points
        match sampler:
            case "sobol":
                # Sobol points are balanced in powers of two only: draw the next one and keep the head.
                points = qmc.Sobol(n, rng=rng).random_base2(math.ceil(math.log2(number)))[:number]
            case "halton":
                points = qmc.Halton(n, rng=rng).random(number)
            case "latin-hypercube":
                points = qmc.LatinHypercube(n, rng=rng).random(number)
            case "grid":
                points = _grid(number, n)
            case _:
                points = rng.uniform(size=(number, n))
        return points

    def _from_file(self, file: Path, skip: int, number: int) -> Points:
        try:
            # A spreadsheet may write a byte order mark.
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"[parameters] file = {str(file)!r} cannot be read as text: {error}") from error
        rows = csv.reader(text.splitlines(), skipinitialspace=True)
        header = [name.strip() for name in next(rows, [])]
        missing = [name for name in self.names if name not in header]
        if missing:
            raise ValueError(
                f"{file}, line 1: no column {', '.join(missing)}; its header names {', '.join(header) or 'nothing'}, "
                f"expected {', '.join(self.names)}"
            )
        columns = [header.index(name) for name in self.names]
        points = [self._row(row, columns, f"{file}, line {rows.line_num}") for row in rows if any(map(str.strip, row))]
        if len(points) < skip + number:
            after = f" after the {skip} for training" if skip else ""
            raise ValueError(
                f"{file} has {len(points)} rows of points: expected at least {skip + number}, as {number} simulations need one "
                f"each{after}; add rows or ask for fewer simulations"
            )
        return np.array(points[skip : skip + number], dtype=np.float64).reshape(number, len(self.names))

    def _row(self, row: list[str], columns: list[int], place: str) -> list[float]:
        point = []
        for name, column, low, high in zip(self.names, columns, self.low, self.high, strict=True):
            text = row[column].strip() if column < len(row) else ""
            try:
                value = float(text)
            except ValueError:
                raise ValueError(f"{place}: {name} = {text!r}, expected a number") from None
            if not low <= value <= high:
                raise ValueError(
                    f"{place}: {name} = {text}, expected a value within its bounds [{low:g}, {high:g}]; "
                    "correct the row or widen the bounds"
                )
            point.append(value)
        return point


def _grid(number: int, n: int) -> Points:
    """Points (number, n) evenly spread over the smallest grid of equally many levels a parameter that has enough of them."""
    levels = 1
    while levels**n < number:
        levels += 1
    whole = levels**n
    # Python's integers, as `whole` may exceed 64 bits in many dimensions.
    rest = [point * (whole - 1) // max(1, number - 1) for point in range(number)]
    points = np.empty((number, n))
    for column in reversed(range(n)):  # the last parameter changes fastest
        points[:, column] = [index % levels for index in rest]
        rest = [index // levels for index in rest]
    return points / (levels - 1) if levels > 1 else np.full((number, n), 0.5)
