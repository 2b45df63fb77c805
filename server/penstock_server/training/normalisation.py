"""Streaming normalisation: mean and standard deviation of all samples so far, without keeping the samples."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penstock_server.study import SampleSpec

Array = NDArray[np.float64]

RELATIVE_FLOOR = 1e-6
"""A column that varies by less than this, relative to its mean or to other components, counts as constant."""
_REFRESH = 1.01  # growth of the number of rows after which the affine map follows
_BLOCK = 1 << 15  # elements at a time: the float64 copy of a block stays in the cache


@dataclass
class Welford:
    """Running statistics of several columns, in float64.

    Blocks of rows are merged by the pairwise update of Chan, Golub and LeVeque 1983, Algorithms for Computing the
    Sample Variance: Analysis and Recommendations.

    Attributes:
        count: number of rows.
        mean: of each column, shape (columns,).
        m2: sum of squared deviations from the mean, shape (columns,).
        low: minimum of each column, shape (columns,); +inf before the first row.
        high: maximum of each column, shape (columns,); -inf before the first row.
    """

    count: float
    mean: Array
    m2: Array
    low: Array
    high: Array

    @classmethod
    def empty(cls, columns: int) -> Welford:
        """Return statistics of no rows of so many columns."""
        infinite = np.full(columns, np.inf)
        return cls(0.0, np.zeros(columns), np.zeros(columns), infinite, -infinite)

    def update(self, rows: NDArray[np.floating[Any]]) -> None:
        """Take in rows.

        Args:
            rows: shape (n, columns), any float dtype; n may be 0.
        """
        step = max(1, _BLOCK // max(1, rows.shape[1]))
        for start in range(0, len(rows), step):
            # Transposed: numpy reduces along contiguous memory, ten times faster for the three components of a vector.
            block = np.array(rows[start : start + step].T, dtype=np.float64, order="C")
            low, high, mean = block.min(axis=1), block.max(axis=1), block.mean(axis=1)
            block -= mean[:, None]
            self.merge(Welford(float(block.shape[1]), mean, np.einsum("cn,cn->c", block, block), low, high))

    def merge(self, other: Welford) -> None:
        """Take in all rows that `other` has seen."""
        if other.count == 0:
            return
        total = self.count + other.count
        delta = other.mean - self.mean
        self.mean = self.mean + delta * (other.count / total)
        self.m2 = self.m2 + other.m2 + delta**2 * (self.count * other.count / total)
        self.low, self.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        self.count = total

    @property
    def std(self) -> Array:
        """Population standard deviation of each column (0 before the first row)."""
        return np.sqrt(self.m2 / max(self.count, 1.0))

    def to_array(self) -> Array:
        """Return the statistics as one row of 1 + 4 columns numbers; `from_array` is the inverse."""
        return np.concatenate([[self.count], self.mean, self.m2, self.low, self.high])

    @classmethod
    def from_array(cls, row: Array) -> Welford:
        """Return the statistics that `to_array` put in a row."""
        mean, m2, low, high = np.array(row[1:], dtype=np.float64).reshape(4, -1)
        return cls(float(row[0]), mean, m2, low, high)


@dataclass(frozen=True)
class Affine:
    """The map normalised = (raw - mean) / std, element by element, in float32.

    Attributes:
        input_mean: shape (n_inputs,).
        input_std: shape (n_inputs,).
        target_mean: shape (width,).
        target_std: shape (width,).
    """

    input_mean: Tensor
    input_std: Tensor
    target_mean: Tensor
    target_std: Tensor

    def to(self, device: torch.device) -> Affine:
        """Return a copy on another device."""
        return Affine(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))

    def inputs(self, raw: Tensor) -> Tensor:
        """Normalise inputs, shape (..., n_inputs)."""
        return (raw - self.input_mean) / self.input_std

    def targets(self, raw: Tensor) -> Tensor:
        """Normalise target rows, or any number k of them laid end to end, shape (..., k width)."""
        return ((self._rows(raw) - self.target_mean) / self.target_std).flatten(-2)

    def raw_targets(self, normalised: Tensor) -> Tensor:
        """Return raw targets; the inverse of `targets`."""
        return torch.addcmul(self.target_mean, self._rows(normalised), self.target_std).flatten(-2)

    def _rows(self, values: Tensor) -> Tensor:
        width = self.target_mean.shape[0]
        return values.reshape(*values.shape[:-1], values.shape[-1] // width, width)


class Normaliser:
    """Statistics of the training stream, and the affine map made from them.

    Inputs have a mean and a standard deviation per column, targets per component of each field, over points, time steps
    and simulations. A column counts as constant, and gets standard deviation 1, when it varies by less than
    RELATIVE_FLOOR of its mean's size or, in a vector or tensor field, of the component that varies most (the empty
    direction of a two-dimensional OpenFOAM case holds rounding noise of 1e-20).

    The map follows the statistics when the number of rows has grown by a hundredth, so always at first and seldom
    later: a change of the map changes the function that the weights represent. The map is part of the state.

    Thread-safe: the ingest thread updates, the training thread reads.

    Args:
        spec: shapes of the samples.
        inputs: whether inputs are normalised.
        targets: whether targets are normalised.
    """

    def __init__(self, spec: SampleSpec, inputs: bool = True, targets: bool = True) -> None:
        self.spec = spec
        self.on_inputs, self.on_targets = inputs, targets
        self._lock = threading.Lock()
        self._columns = _columns(spec)
        self._own = [Welford.empty(n) for n in self._columns]
        self._applied = [Welford.empty(n) for n in self._columns]
        self._follows_own = True
        self._affine: Affine | None = None

    def update(self, inputs: NDArray[np.floating[Any]], targets: NDArray[np.floating[Any]]) -> None:
        """Take in new training samples, each once.

        Args:
            inputs: shape (n, window, n_inputs).
            targets: shape (n, window, width).
        """
        flat = targets.reshape(-1, self.spec.width)
        with self._lock:
            # Always: the model card tells the range of the inputs.
            self._own[0].update(inputs.reshape(-1, self.spec.n_inputs))
            if self.on_targets:
                columns = self.spec.columns()
                for welford, field in zip(self._own[1:], self.spec.fields, strict=True):
                    # One time step's field is contiguous, so that the reshape copies nothing.
                    for row in flat[:, columns[field.name]]:
                        welford.update(row.reshape(field.points, field.components))

    def affine(self) -> Affine:
        """Return the present map, on the CPU; the same object until it changes.

        Where normalisation is off, and before any sample, its means are 0 and its standard deviations 1.
        """
        with self._lock:
            if self._follows_own and self._outdated(self._own[0].count):
                self._apply(self._own)
            if self._affine is None:
                self._affine = self._make_affine()
            return self._affine

    def input_range(self) -> tuple[Array, Array]:
        """Return the smallest and the largest value of each input column (parameters..., time) so far."""
        with self._lock:
            return self._own[0].low.copy(), self._own[0].high.copy()

    @property
    def rows_seen(self) -> float:
        """Input rows (one a time step) that this normaliser has taken in."""
        with self._lock:
            return self._own[0].count

    def is_outdated(self, rows_seen: float) -> bool:
        """Return whether the map should follow now.

        Args:
            rows_seen: input rows that all ranks together have seen.
        """
        with self._lock:
            return self._outdated(rows_seen)

    def statistics(self) -> Array:
        """Return this rank's statistics as one float64 row, whose length depends on the spec alone."""
        with self._lock:
            return np.concatenate([w.to_array() for w in self._own])

    def share(self, statistics: Sequence[Array]) -> None:
        """Base the map on the statistics of all ranks; from now on it changes only when `share` is called again.

        All ranks call it at the same batch with the same rows in the same order, so that their maps are equal and their
        gradients may be averaged.

        Args:
            statistics: of each rank.
        """
        merged = self._unpack(merged_statistics(self.spec, statistics))
        with self._lock:
            self._follows_own = False
            self._apply(merged)

    def state_dict(self) -> dict[str, Any]:
        """Return the statistics and the map, for a checkpoint."""
        with self._lock:
            return {
                "own": np.concatenate([w.to_array() for w in self._own]),
                "applied": np.concatenate([w.to_array() for w in self._applied]),
                "follows_own": self._follows_own,
            }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`.

        Args:
            state: of a checkpoint.

        Raises:
            ValueError: when the state belongs to other fields.
        """
        own, applied = self._unpack(state["own"]), self._unpack(state["applied"])
        with self._lock:
            self._own, self._applied, self._affine = own, applied, None
            self._follows_own = bool(state["follows_own"])

    def _outdated(self, seen: float) -> bool:
        return seen > 0 and seen >= _REFRESH * self._applied[0].count

    def _unpack(self, row: Array) -> list[Welford]:
        return _unpack(self._columns, row)

    def _apply(self, statistics: list[Welford]) -> None:
        self._applied = [Welford.from_array(w.to_array()) for w in statistics]
        self._affine = None

    def _make_affine(self) -> Affine:
        inputs, *fields = self._applied
        input_mean, input_std = _mean_and_std(inputs, sisters=False) if self.on_inputs else _identity(inputs)
        per_field = [_mean_and_std(w, sisters=True) if self.on_targets else _identity(w) for w in fields]
        points = [f.points for f in self.spec.fields]
        return Affine(
            input_mean,
            input_std,
            torch.cat([mean.repeat(n) for (mean, _), n in zip(per_field, points, strict=True)]),
            torch.cat([std.repeat(n) for (_, std), n in zip(per_field, points, strict=True)]),
        )


def merged_statistics(spec: SampleSpec, rows: Sequence[Array]) -> Array:
    """Merge the statistics of several normalisers.

    Args:
        spec: shapes of the samples.
        rows: `Normaliser.statistics` of each; none for the statistics of no samples.

    Returns:
        Statistics of all samples together, as one row.
    """
    columns = _columns(spec)
    merged = [Welford.empty(n) for n in columns]
    for row in rows:
        for into, one in zip(merged, _unpack(columns, row), strict=True):
            into.merge(one)
    return np.concatenate([w.to_array() for w in merged])


def _columns(spec: SampleSpec) -> list[int]:
    return [spec.n_inputs, *(f.components for f in spec.fields)]


def _unpack(columns: list[int], row: Array) -> list[Welford]:
    lengths = [1 + 4 * n for n in columns]
    if len(row) != sum(lengths):
        raise ValueError(
            f"normalisation statistics of {len(row)} numbers: expected {sum(lengths)} for the fields of this study"
        )
    return [Welford.from_array(part) for part in np.split(np.asarray(row), np.cumsum(lengths)[:-1])]


def _identity(statistics: Welford) -> tuple[Tensor, Tensor]:
    columns = len(statistics.mean)
    return torch.zeros(columns), torch.ones(columns)


def _mean_and_std(statistics: Welford, *, sisters: bool) -> tuple[Tensor, Tensor]:
    std = statistics.std
    floor = RELATIVE_FLOOR * np.abs(statistics.mean)
    if sisters:
        floor = np.maximum(floor, RELATIVE_FLOOR * std.max())
    std = np.where(std > floor, std, 1.0)
    return torch.from_numpy(statistics.mean).float(), torch.from_numpy(std).float()
