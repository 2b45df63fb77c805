"""The parameter space, and the points in it at which simulations run."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator, model_validator

from penstock_client.codec import MAX_ITEMS
from penstock_server.study.section import Section
from penstock_server.study.sobol import sobol_points


class ParametersSection(Section):
    """[parameters]: every key but `sampler` and `file` is a parameter.

    A parameter is written in one of three forms:

    - name = [low, high]: a number.
    - name = { bounds = [low, high], size = n }: n numbers, called name_0, name_1, ...
    - name = "seed": the seed of a random field, an integer below 2**32. Solvers receive it like any parameter. Models
      do not, since its value carries no information; they see the field itself as the first time steps.

    Attributes:
        sampler: how points are chosen (scipy.stats.qmc).
        file: CSV file whose header names the parameters, for sampler "file".
        bounds: parameter name to (low, high), of all parameters that are numbers; not a key of the study file.
        seeds: names of the parameters that are seeds; not a key of the study file.
    """

    sampler: Literal["uniform", "sobol", "halton", "latin-hypercube", "grid", "file"] = "sobol"
    file: str | None = None
    bounds: dict[str, tuple[float, float]] = {}
    seeds: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All parameters that a solver receives: numbers in the order of the study file, then seeds."""
        return (*self.bounds, *self.seeds)

    @model_validator(mode="before")
    @classmethod
    def _gather_bounds(cls, data: Any) -> Any:
        if not isinstance(data, dict) or _gathered(data):
            return data
        own = {k: v for k, v in data.items() if k in ("sampler", "file")}
        bounds: dict[str, Any] = {}
        for name, value in data.items():
            if name in own or value == "seed":
                continue
            _check_kind(name, value)
            new = {name: value}
            if isinstance(value, list) and any(isinstance(bound, bool) for bound in value):
                raise ValueError(f"{name} = {value}: expected [low, high], two numbers with low < high")
            if isinstance(value, dict):
                size = value.get("size")
                if value.keys() != {"bounds", "size"} or not isinstance(size, int) or size is True or size < 1:
                    raise ValueError(
                        f'{name} = {value}: expected {{ bounds = [low, high], size = n }}, [low, high] or "seed"'
                    )
                if not isinstance(value["bounds"], list):
                    raise ValueError(f"{name} has bounds = {value['bounds']!r}: expected [low, high]")
                if size > MAX_ITEMS:
                    raise ValueError(f"{name} has size = {size}: at most {MAX_ITEMS} parameters are allowed")
                new = {f"{name}_{i}": value["bounds"] for i in range(size)}
            twice = next((k for k in new if k in bounds or (k != name and k in data)), None)
            if twice is not None:
                raise ValueError(f"{twice} is given twice, once as a number of a vector: rename one of the two")
            bounds |= new
        return {**own, "bounds": bounds, "seeds": [k for k, v in data.items() if v == "seed"]}

    @field_validator("bounds")
    @classmethod
    def _ordered(cls, bounds: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        for name, (low, high) in bounds.items():
            if math.isnan(low) or math.isnan(high):
                raise ValueError(f"{name} = [{low:g}, {high:g}]: expected two numbers with low < high; NaN is none")
            if low == high:
                raise ValueError(f"{name} = [{low:g}, {high:g}]: expected [low, high] with low < high; {_CONSTANT}")
            if math.isfinite(low) and math.isfinite(high) and math.isinf(high - low):
                raise ValueError(f"{name} = [{low:g}, {high:g}]: expected bounds whose difference is a finite number")
            if not low < high:
                raise ValueError(f"{name} = [{low:g}, {high:g}]: expected [low, high] with low < high; swap them")
        return bounds

    @model_validator(mode="after")
    def _usable(self) -> ParametersSection:
        if not self.names:
            raise ValueError("no parameter is given: expected at least one, such as viscosity = [0.005, 0.02]")
        if len(self.names) > MAX_ITEMS:
            raise ValueError(f"{len(self.names)} parameters: at most {MAX_ITEMS} are allowed")
        for name in self.names:
            if not name.isidentifier():
                raise ValueError(f"{name!r} is not a usable parameter name: letters, digits and _ only")
        if (self.sampler == "file") != (self.file is not None):
            raise ValueError('sampler = "file" and file = "points.csv" go together; give both or neither')
        return self


_CONSTANT = "a value that is the same in all simulations is no parameter: write it into the case or [solver] options"


def _gathered(data: dict[str, Any]) -> bool:
    """Return whether the parameters are gathered in `bounds` already; the study file may have a parameter `bounds`."""
    bounds = data.get("bounds")
    return isinstance(bounds, dict) and not isinstance(bounds.get("size"), int)


_LATER = {
    "log-uniform ranges": ("log", "loguniform", "log-uniform", "log_uniform", "logarithmic"),
    "integers": ("int", "integer", "integers", "discrete"),
    "choices": ("choice", "choices", "values", "categories", "categorical"),
}
"""Kinds of parameters to come, and the words by which people ask for them."""


def _check_kind(name: str, value: Any) -> None:
    """Refuse what is not available yet, with what there is instead."""
    kind = ""
    if isinstance(value, int | float):
        raise ValueError(f"{name} = {value}: expected [low, high], two numbers with low < high; {_CONSTANT}")
    if isinstance(value, list) and (len(value) > 2 or (value and all(isinstance(v, str) for v in value))):
        kind = "choices"
    if isinstance(value, dict):
        words = [word.lower() for word in (*value, *value.values()) if isinstance(word, str)]
        kind = next((what for what, known in _LATER.items() if any(word in known for word in words)), "")
    if kind:
        raise ValueError(
            f"{name} = {value}: {kind} are not available yet; write {name} = [low, high] for a number that is uniform "
            'within bounds, or draw points yourself: sampler = "file" takes them from a CSV file'
        )


Points = NDArray[np.float64]
MAX_SEED = 2**32 - 1
_SEQUENCES = ("uniform", "sobol", "halton")


class ParameterSpace:
    """The box of a study's parameters, and how points in it are chosen.

    Args:
        section: [parameters] of the study file.
        directory: folder of the study file, where a relative `file` starts.

    Attributes:
        names: parameters in the order of the study file, seeds last; the columns of every array of points.
        seeds: number of parameters that are seeds.
        low: lower bounds, (n,) float64; 0 for a seed.
        high: upper bounds, (n,) float64; 2**32 - 1 for a seed.
        sampler: how points are chosen.
        file: CSV file with the points, for sampler "file".
    """

    def __init__(self, section: ParametersSection, directory: str | Path = ".") -> None:
        self.names = section.names
        self.seeds = len(section.seeds)
        bounds = [*section.bounds.values(), *(self.seeds * [(0.0, MAX_SEED)])]
        self.low: Points = np.array([low for low, _ in bounds], dtype=np.float64)
        self.high: Points = np.array([high for _, high in bounds], dtype=np.float64)
        self.sampler = section.sampler
        self.file = None if section.file is None else Path(directory) / section.file

    def draw(self, number: int, seed: int, validation: bool = False, *, training: int = 0) -> Points:
        """Draw points within the bounds; the same arguments give the same points.

        - uniform, sobol and halton (both scrambled): the first k points of a larger draw are those of a draw of k.
        - latin-hypercube: one point in each of `number` slices of every parameter.
        - grid: equally spaced levels, bounds included, the same number for each parameter; the smallest such grid of
          at least `number` points, evenly thinned to `number`.
        - file: the rows of the CSV file in order.

        Args:
            number: number of points.
            seed: of the study.
            validation: draw held-out points, from a random stream of their own; for "grid" they are uniform, so that
                they lie off the grid, for "file" the rows after the first `training` ones.
            training: number of training points, for "file".

        Returns:
            Points (number, n) float64, columns as in `names`.

        Raises:
            ValueError: the file cannot be used; the message names the line and what was expected.
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
        # A random stream of their own, so that adding a seed parameter does not change the other parameters.
        seeds = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(int(validation), 1)))
        points[:, numbers:] = seeds.integers(0, MAX_SEED, size=(number, self.seeds), endpoint=True)
        return points

    def further(self, number: int, seed: int, *, training: int) -> Points:
        """Draw more points, which continue the sequence of the `training` points of `draw`.

        Args:
            number: number of further points.
            seed: of the study.
            training: number of points drawn before.

        Returns:
            Points (number, n) float64, columns as in `names`.

        Raises:
            ValueError: the sampler's points are not a sequence that can be continued.
        """
        if self.sampler not in _SEQUENCES:
            raise ValueError(
                f'[solver] on_failure = "redraw" with [parameters] sampler = "{self.sampler}", whose points are a '
                'closed set: expected a sampler that can go on, one of "sobol", "halton" and "uniform"; set one of '
                'these, or on_failure = "drop"'
            )
        return self.draw(training + number, seed)[training:]

    def named(self, point: Points) -> dict[str, float]:
        """Return one point (n,) as parameter name to value, as a solver takes it."""
        return dict(zip(self.names, point.tolist(), strict=True))

    def outside(self, values: Mapping[str, float]) -> list[str]:
        """List the parameters whose value is outside its bounds or NaN.

        Args:
            values: parameter name to value.

        Returns:
            Their names, in the order of `names`.

        Raises:
            ValueError: `values` does not name exactly the parameters of this space.
        """
        if values.keys() != set(self.names):
            raise ValueError(f"parameters {', '.join(values) or 'none'}: expected {', '.join(self.names)}")
        bounds = zip(self.names, self.low, self.high, strict=True)
        return [name for name, low, high in bounds if not low <= values[name] <= high]

    def _unit(self, number: int, n: int, seed: np.random.SeedSequence, validation: bool) -> Points:
        """Points (number, n) in the unit cube."""
        rng = np.random.default_rng(seed)
        sampler = "uniform" if self.sampler == "grid" and validation else self.sampler
        points: Points
        match sampler:
            case "sobol":
                # Sobol points are balanced in powers of two only: draw the next power and keep the first points.
                points = sobol_points(n, math.ceil(math.log2(number)), rng)[:number]
            case "halton":
                from scipy.stats import qmc  # imported here: it takes over a second

                points = qmc.Halton(n, rng=rng).random(number)
            case "latin-hypercube":
                from scipy.stats import qmc

                points = qmc.LatinHypercube(n, rng=rng).random(number)
            case "grid":
                points = _grid(number, n)
            case _:
                points = rng.uniform(size=(number, n))
        return points

    def _from_file(self, file: Path, skip: int, number: int) -> Points:
        try:
            text = file.read_text(encoding="utf-8-sig")  # spreadsheets may write a byte order mark
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"[parameters] file = {str(file)!r} cannot be read as text: {error}") from error
        rows = csv.reader(text.splitlines(), skipinitialspace=True)
        header = [name.strip() for name in next(rows, [])]
        twice = [name for name in self.names if header.count(name) > 1]
        if twice:
            raise ValueError(f"{file}, line 1: column {', '.join(twice)} is there twice: leave one")
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
                f"{file} has {len(points)} rows of points: expected at least {skip + number}, as {number} simulations "
                f"need one each{after}; add rows or ask for fewer simulations"
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
            if name in self.names[len(self.names) - self.seeds :] and not value.is_integer():
                raise ValueError(f"{place}: {name} = {text}, expected a whole number, since {name} is a seed")
            point.append(value)
        return point


def _grid(number: int, n: int) -> Points:
    """Return points (number, n) in the unit cube, spread evenly over the smallest grid of at least `number` points."""
    levels = 1
    while levels**n < number:
        levels += 1
    whole = levels**n
    # Python integers, since `whole` may exceed 64 bits in many dimensions.
    rest = [point * (whole - 1) // max(1, number - 1) for point in range(number)]
    points = np.empty((number, n))
    for column in reversed(range(n)):  # the last parameter changes fastest
        points[:, column] = [index % levels for index in rest]
        rest = [index // levels for index in rest]
    return points / (levels - 1) if levels > 1 else np.full((number, n), 0.5)
