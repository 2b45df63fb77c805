"""How far predictions are from the truth: norms over each field of each time step, and what is said about many of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penstock_server.study import SampleSpec

NORM_FLOOR = 1e-3
"""Of a field's root-mean-square norm over the held-out set: see `Errors`."""

RUNAWAY = 1e6
"""Relative error above which a prediction counts as this far off: an unstable rollout would overflow every mean."""


class FieldErrors(TypedDict):
    """One field's errors over the held-out samples; the figures mean what they mean in `Errors`."""

    mse: float
    relative_l2: float
    relative_l2_p99: float
    relative_l2_max: float


@dataclass(frozen=True)
class Errors:
    """Errors of many predicted time steps, in the raw units of the solver.

    mse: mean squared error over all elements of all fields, as in the SC 2023 paper.
    relative_l2: mean over time steps and fields of ||prediction - true|| / ||true||, each norm over one field of one time step.
    relative_l2_p99, relative_l2_max: 99th percentile and maximum of the same ratios.
    fields: the same for each field alone. samples: how many time steps were predicted.
    floored: how many ratios had a true norm below NORM_FLOOR x the field's root-mean-square norm (a fluid at rest, say) and were taken
    relative to that floor instead, so that one all but empty field does not decide the mean. runaway: how many ratios were above RUNAWAY,
    or not finite, and count as RUNAWAY.
    """

    mse: float
    relative_l2: float
    relative_l2_p99: float
    relative_l2_max: float
    fields: dict[str, FieldErrors]
    samples: int
    floored: int
    runaway: int


@dataclass(frozen=True)
class Norms:
    """Of n time steps: errors, true: (n, fields) float64, L2 norms of each field's error and of the field itself."""

    errors: NDArray[np.float64]
    true: NDArray[np.float64]

    @classmethod
    def of(cls, spec: SampleSpec, prediction: Tensor, true: Tensor) -> Norms:
        """prediction, true: (n, width), raw."""
        difference = prediction - true
        columns = spec.columns().values()
        both = [torch.stack([_norm(rows[:, c]) for c in columns], dim=1).cpu().numpy() for rows in (difference, true)]
        return cls(*both)

    @classmethod
    def join(cls, parts: list[Norms]) -> Norms:
        return cls(np.concatenate([p.errors for p in parts]), np.concatenate([p.true for p in parts]))

    @classmethod
    def none(cls, fields: int) -> Norms:
        return cls(np.empty((0, fields)), np.empty((0, fields)))

    def rows(self) -> NDArray[np.float64]:
        """(n, 2 x fields), for sending them elsewhere; `from_rows` is the inverse."""
        return np.concatenate([self.errors, self.true], axis=1)

    @classmethod
    def from_rows(cls, rows: NDArray[np.float64]) -> Norms:
        return cls(*np.split(rows, 2, axis=1))

    def scale(self) -> NDArray[np.float64]:
        """What each error is taken relative to: (n, fields)."""
        floor = NORM_FLOOR * np.sqrt(np.mean(self.true**2, axis=0))
        # A field that is zero in every sample: its error is measured against 1 in its own unit.
        scale: NDArray[np.float64] = np.maximum(self.true, np.where(floor > 0, floor, 1.0))
        return scale

    def summary(self, spec: SampleSpec) -> Errors:
        """All the figures. Raises ValueError when there is no time step."""
        if not len(self.errors):
            raise ValueError("no error without a predicted time step: expected at least one")
        scale = self.scale()
        limit = RUNAWAY * scale
        errors = np.where(np.isfinite(self.errors), np.minimum(self.errors, limit), limit)
        ratios = errors / scale
        squares = np.sum(errors**2, axis=0)
        fields: dict[str, FieldErrors] = {}
        for i, field in enumerate(spec.fields):
            mean, p99, largest = _spread(ratios[:, i])
            fields[field.name] = {
                "mse": float(squares[i]) / (len(errors) * field.size),
                "relative_l2": mean,
                "relative_l2_p99": p99,
                "relative_l2_max": largest,
            }
        return Errors(
            float(squares.sum()) / (len(errors) * spec.width),
            *_spread(ratios),
            fields=fields,
            samples=len(errors),
            floored=int(np.count_nonzero(self.true < scale)),
            runaway=int(np.count_nonzero(errors == limit)),
        )


def _norm(rows: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
    return norms


def _spread(ratios: NDArray[Any]) -> tuple[float, float, float]:
    return float(ratios.mean()), float(np.quantile(ratios, 0.99)), float(ratios.max())
