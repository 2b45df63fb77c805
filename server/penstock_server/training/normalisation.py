"""Streaming normalisation: mean and standard deviation of everything seen so far, without keeping any of it."""

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
"""A column that varies by less than this, relative to its mean or to its sister components, counts as constant."""
_REFRESH = 1.01
_BLOCK = 1 << 15  # elements at a time: the float64 copy of a block stays in the cache


@dataclass
class Welford:
    """Count, mean, sum of squared deviations, minimum and maximum of each of several columns.

    Blocks of rows are merged by the pairwise update of Chan, Golub and LeVeque (1983), in float64.
    """

    count: float
    mean: Array
    m2: Array
    low: Array
    high: Array

    @classmethod
    def empty(cls, columns: int) -> Welford:
        infinite = np.full(columns, np.inf)
        return cls(0.0, np.zeros(columns), np.zeros(columns), infinite, -infinite)

    def update(self, rows: NDArray[np.floating[Any]]) -> None:
        """Take in rows (n, columns) of any float dtype; n may be 0."""
        step = max(1, _BLOCK // max(1, rows.shape[1]))
        for start in range(0, len(rows), step):
            # A row for each column: numpy reduces along contiguous memory, ten times faster for the three components of a vector.
            block = np.array(rows[start : start + step].T, dtype=np.float64, order="C")
            low, high, mean = block.min(axis=1), block.max(axis=1), block.mean(axis=1)
            block -= mean[:, None]
            self.merge(Welford(float(block.shape[1]), mean, np.einsum("cn,cn->c", block, block), low, high))

    def merge(self, other: Welford) -> None:
        """Take in all that `other` has seen."""
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
        """All of it in one row of 1 + 4 x columns numbers; `from_array` is the inverse."""
        return np.concatenate([[self.count], self.mean, self.m2, self.low, self.high])

    @classmethod
    def from_array(cls, row: Array) -> Welford:
        mean, m2, low, high = np.array(row[1:], dtype=np.float64).reshape(4, -1)
        return cls(float(row[0]), mean, m2, low, high)


@dataclass(frozen=True)
class Affine:
    """normalised = (raw - mean) / std, element by element; float32.

    input_mean, input_std: (n_inputs,). target_mean, target_std: (width,).
    """

    input_mean: Tensor
    input_std: Tensor
    target_mean: Tensor
    target_std: Tensor

    def to(self, device: torch.device) -> Affine:
        return Affine(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))

    def inputs(self, raw: Tensor) -> Tensor:
        return (raw - self.input_mean) / self.input_std

    def targets(self, raw: Tensor) -> Tensor:
        """Target rows, or any number k of them laid end to end: (..., k x width)."""
        return ((self._rows(raw) - self.target_mean) / self.target_std).flatten(-2)

    def raw_targets(self, normalised: Tensor) -> Tensor:
        """The inverse of `targets`."""
        return torch.addcmul(self.target_mean, self._rows(normalised), self.target_std).flatten(-2)

    def _rows(self, values: Tensor) -> Tensor:
        width = self.target_mean.shape[0]
        return values.reshape(*values.shape[:-1], values.shape[-1] // width, width)


class Normaliser:
    """Statistics of the training stream, and the affine map that they make.

    Inputs have a mean and a standard deviation per column, targets per component of each field, over points, time steps
    and simulations. A column counts as constant, and gets standard deviation 1, when it varies by less than
    RELATIVE_FLOOR of its mean's size or, in a vector or tensor field, of its most varying sister component (the empty
    direction of a two-dimensional OpenFOAM case holds rounding noise of 1e-20).

    The affine follows the statistics when the number of samples has grown by a hundredth, so always at first and
    seldom later: a moving affine moves the function that the weights stand for. It is part of the state.

    Thread-safe: the ingest thread updates, the training thread reads.
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
        """Take in new training samples, once each: inputs (n, window, n_inputs), targets (n, window, width)."""
        flat = targets.reshape(-1, self.spec.width)
        with self._lock:
            # The inputs' range is wanted for the model card even where nothing is normalised.
            self._own[0].update(inputs.reshape(-1, self.spec.n_inputs))
            if self.on_targets:
                columns = self.spec.columns()
                for welford, field in zip(self._own[1:], self.spec.fields, strict=True):
                    # One time step's field is contiguous, so that the reshape copies nothing.
                    for row in flat[:, columns[field.name]]:
                        welford.update(row.reshape(field.points, field.components))

    def affine(self) -> Affine:
        """The map in force, on the CPU; the same object until it changes. Off, or before any sample: mean 0, std 1."""
        with self._lock:
            if self._follows_own and self._outdated(self._own[0].count):
                self._apply(self._own)
            if self._affine is None:
                self._affine = self._make_affine()
            return self._affine

    def input_range(self) -> tuple[Array, Array]:
        """Smallest and largest value of each input column (parameters..., time) that was trained on."""
        with self._lock:
            return self._own[0].low.copy(), self._own[0].high.copy()

    @property
    def rows_seen(self) -> float:
        """Input rows (one a time step) that this normaliser has taken in."""
        with self._lock:
            return self._own[0].count

    def is_outdated(self, rows_seen: float) -> bool:
        """Whether the affine should follow now that all ranks together have seen so many."""
        with self._lock:
            return self._outdated(rows_seen)

    def statistics(self) -> Array:
        """What this rank has seen, as one float64 row whose length depends on the spec alone: fit for an all-gather."""
        with self._lock:
            return np.concatenate([w.to_array() for w in self._own])

    def share(self, statistics: Sequence[Array]) -> None:
        """Base the affine on the statistics of all ranks from now on; it changes at the next `share` only.

        Each rank calls it at the same batch with the same rows (in the same order), so that all ranks' affines are
        equal and their gradients may be averaged.
        """
        merged = self._unpack(merged_statistics(self.spec, statistics))
        with self._lock:
            self._follows_own = False
            self._apply(merged)

    def state_dict(self) -> dict[str, Any]:
        with self._lock:
            return {
                "own": np.concatenate([w.to_array() for w in self._own]),
                "applied": np.concatenate([w.to_array() for w in self._applied]),
                "follows_own": self._follows_own,
            }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ValueError when the state belongs to another spec."""
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
    """The `Normaliser.statistics` of all that several normalisers have seen; of none, those of one that has seen nothing."""
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
