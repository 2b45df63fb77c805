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

from penstock_server.native import Moments, moments
from penstock_server.study import SampleSpec
from penstock_server.training.welford import Array, Welford

RELATIVE_FLOOR = 1e-6
"""A column that varies by less than this, relative to its mean or to other components, counts as constant."""
JUMP = 1e3
"""A sample that multiplies the standard deviation of a field by more than this is reported."""
JUMP_AFTER = 100  # time steps before which the standard deviation is not known well enough
_REFRESH = 1.01  # growth of the number of rows after which the affine map follows


@dataclass(frozen=True)
class Affine:
    """The map normalised = (raw - mean) / std, element by element, in float32, and its inverse.

    Attributes:
        input_mean: shape (n_inputs,).
        input_std: shape (n_inputs,); 1 where an input is constant.
        target_mean: shape (width,).
        target_std: shape (width,); 1 where a component is constant.
        target_scale: factor of the inverse, shape (width,): `target_std`, but 0 where a component is constant, so that
            the constant is predicted whatever the model gives.
    """

    input_mean: Tensor
    input_std: Tensor
    target_mean: Tensor
    target_std: Tensor
    target_scale: Tensor

    def to(self, device: torch.device) -> Affine:
        """Return a copy on another device."""
        return Affine(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))

    def inputs(self, raw: Tensor) -> Tensor:
        """Normalise inputs, shape (..., n_inputs)."""
        return (raw - self.input_mean) / self.input_std

    def targets(self, raw: Tensor) -> Tensor:
        """Normalise target rows, or any number k of them laid end to end, shape (..., k width)."""
        # In place, because writing a second array of this size takes longer than the arithmetic.
        return (self._rows(raw) - self.target_mean).div_(self.target_std).flatten(-2)

    def raw_targets(self, normalised: Tensor) -> Tensor:
        """Return raw targets; the inverse of `targets`, which knows no variation of a constant component."""
        return torch.addcmul(self.target_mean, self._rows(normalised), self.target_scale).flatten(-2)

    def _rows(self, values: Tensor) -> Tensor:
        width = self.target_mean.shape[0]
        return values.reshape(*values.shape[:-1], values.shape[-1] // width, width)


class Normaliser:
    """Statistics of the training stream, and the affine map made from them.

    Inputs have a mean and a standard deviation per column, targets per component of each field, over points, time steps
    and simulations. A column counts as constant when it varies by less than RELATIVE_FLOOR of its mean's size or, in a
    vector or tensor field, of the component that varies most (the empty direction of a two-dimensional OpenFOAM case
    holds rounding noise of 1e-20). It is divided by 1, and its mean is what is predicted.

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
        self._jumps: dict[str, str] = {}  # by field

    def update(self, inputs: NDArray[np.floating[Any]], targets: NDArray[np.floating[Any]]) -> None:
        """Take in new training samples, each once.

        Args:
            inputs: shape (n, window, n_inputs).
            targets: shape (n, window, width).
        """
        flat, columns = targets.reshape(-1, self.spec.width), self.spec.columns()
        fields = []
        for field in self.spec.fields:
            # One time step's field is contiguous, so that the reshape copies nothing.
            rows = (row.reshape(field.points, field.components) for row in flat[:, columns[field.name]])
            fields.append([moments(values) for values in rows])
        self.merge(inputs, fields)

    def merge(self, inputs: NDArray[np.floating[Any]], fields: Sequence[Sequence[Moments]]) -> None:
        """Take in new training samples, each once, of whose targets the statistics are known.

        Args:
            inputs: shape (n, window, n_inputs).
            fields: statistics of the targets of these samples, for each field of the study, in any number of parts.
        """
        # Computed before the lock is taken, which training waits for. The inputs and the fields always: the model card
        # tells the range of the inputs, and the report which components never vary.
        new = [[moments(inputs.reshape(-1, self.spec.n_inputs))], *fields]
        with self._lock:
            before = [(w.count, w.std) for w in self._own[1:]]
            for welford, parts in zip(self._own, new, strict=True):
                for part in parts:
                    welford.merge(part)
            self._note_jumps(before, inputs)

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

    def field_statistics(self) -> dict[str, Welford]:
        """Return the statistics of each field by component, of the samples of all ranks as far as they are shared."""
        with self._lock:
            known = self._own if self._follows_own else self._applied
            return {f.name: Welford.from_array(w.to_array()) for f, w in zip(self.spec.fields, known[1:], strict=True)}

    def jumps(self) -> tuple[str, ...]:
        """Return the fields, and the samples that multiplied their standard deviation by more than JUMP."""
        with self._lock:
            return tuple(self._jumps.values())

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

    def _note_jumps(self, before: list[tuple[float, Array]], inputs: NDArray[np.floating[Any]]) -> None:
        """Note a field whose standard deviation these samples have multiplied; the first time only."""
        for field, welford, (count, std) in zip(self.spec.fields, self._own[1:], before, strict=True):
            if field.name in self._jumps or count < JUMP_AFTER * field.points:
                continue
            after = welford.std
            leaps = np.flatnonzero((std > 0) & (after > JUMP * std))
            if leaps.size:
                names = (*self.spec.parameters, "time")
                at = ", ".join(f"{n} = {v:g}" for n, v in zip(names, inputs.reshape(-1, len(names))[-1], strict=True))
                self._jumps[field.name] = (
                    f"field {field.name}: the time step at {at} raised the standard deviation from "
                    f"{std[leaps[0]]:.3g} to {after[leaps[0]]:.3g}"
                )

    def _outdated(self, seen: float) -> bool:
        return seen > 0 and seen >= _REFRESH * self._applied[0].count

    def _unpack(self, row: Array) -> list[Welford]:
        return _unpack(self._columns, row)

    def _apply(self, statistics: list[Welford]) -> None:
        self._applied = [Welford.from_array(w.to_array()) for w in statistics]
        self._affine = None

    def _make_affine(self) -> Affine:
        inputs, *fields = self._applied
        input_mean, input_std, _ = _mean_and_std(inputs, sisters=False) if self.on_inputs else _identity(inputs)
        per_field = [_mean_and_std(w, sisters=True) if self.on_targets else _identity(w) for w in fields]
        points = [f.points for f in self.spec.fields]
        rows = [
            torch.cat([row.repeat(n) for row, n in zip(kind, points, strict=True)])
            for kind in zip(*per_field, strict=True)
        ]
        return Affine(input_mean, input_std, *rows)


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


def constant_columns(statistics: Welford, *, sisters: bool) -> NDArray[np.bool_]:
    """Return which columns count as constant; see `Normaliser`.

    Args:
        statistics: of the columns.
        sisters: whether the columns are components of one field.

    Returns:
        Shape (columns,).
    """
    floor = RELATIVE_FLOOR * np.abs(statistics.mean)
    if sisters:
        floor = np.maximum(floor, RELATIVE_FLOOR * statistics.std.max())
    constant: NDArray[np.bool_] = statistics.std <= floor
    return constant


def _identity(statistics: Welford) -> tuple[Tensor, Tensor, Tensor]:
    columns = len(statistics.mean)
    return torch.zeros(columns), torch.ones(columns), torch.ones(columns)


def _mean_and_std(statistics: Welford, *, sisters: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean, the standard deviation (1 for a constant), and the factor of the inverse (0 for a constant)."""
    constant, seen = constant_columns(statistics, sisters=sisters), statistics.count > 0
    std = np.where(constant, 1.0, statistics.std)
    scale = np.where(constant & seen, 0.0, std)
    return (torch.from_numpy(statistics.mean).float(), torch.from_numpy(std).float(), torch.from_numpy(scale).float())
