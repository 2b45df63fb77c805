"""Errors of predictions: L2 norms over each field of each time step, and figures over many time steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penstock_server.study import SampleSpec

NORM_FLOOR = 1e-3
"""Smallest true norm, as a fraction of the field's root-mean-square norm over the held-out set: see `Errors`."""

RUNAWAY = 1e6
"""Largest relative error; larger ones count as this, since an unstable rollout would overflow every mean."""


class FieldErrors(TypedDict):
    """Errors of one field over the held-out samples.

    Attributes:
        mse: as in `Errors`.
        relative_l2: as in `Errors`.
        relative_l2_p99: as in `Errors`.
        relative_l2_max: as in `Errors`.
    """

    mse: float
    relative_l2: float
    relative_l2_p99: float
    relative_l2_max: float


@dataclass(frozen=True)
class Errors:
    """Errors of many predicted time steps, in the raw units of the solver.

    Attributes:
        mse: mean squared error over all elements of all fields, as in the SC 2023 paper.
        relative_l2: mean over time steps and fields of ||prediction - true|| / ||true||, each norm over one field of
            one time step.
        relative_l2_p99: 99th percentile of the same ratios.
        relative_l2_max: maximum of the same ratios.
        fields: field name to the same figures for this field alone.
        samples: number of predicted time steps.
        floored: number of ratios whose true norm was below NORM_FLOOR x the field's root-mean-square norm (such as a
            fluid at rest). They are relative to this floor instead, so that an almost empty field does not dominate the
            mean.
        runaway: number of ratios that were above RUNAWAY or not finite, and count as RUNAWAY.
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
    """L2 norms of n predicted time steps.

    Attributes:
        errors: norm of the error of each field, (n, fields) float64.
        true: norm of the true field, (n, fields) float64.
    """

    errors: NDArray[np.float64]
    true: NDArray[np.float64]

    @classmethod
    def of(cls, spec: SampleSpec, prediction: Tensor, true: Tensor) -> Norms:
        """Compute the norms of predictions.

        Args:
            spec: layout of a sample.
            prediction: predicted target rows, (n, width), raw units.
            true: true target rows, (n, width), raw units.
        """
        difference = prediction - true
        columns = spec.columns().values()
        both = [torch.stack([_norm(rows[:, c]) for c in columns], dim=1).cpu().numpy() for rows in (difference, true)]
        return cls(*both)

    @classmethod
    def join(cls, parts: list[Norms]) -> Norms:
        """Concatenate norms of several sets of time steps."""
        return cls(np.concatenate([p.errors for p in parts]), np.concatenate([p.true for p in parts]))

    @classmethod
    def none(cls, fields: int) -> Norms:
        """Return the norms of no time step."""
        return cls(np.empty((0, fields)), np.empty((0, fields)))

    def rows(self) -> NDArray[np.float64]:
        """Return all norms as one array (n, 2 x fields), to be sent to other ranks."""
        return np.concatenate([self.errors, self.true], axis=1)

    @classmethod
    def from_rows(cls, rows: NDArray[np.float64]) -> Norms:
        """Restore the norms from what `rows` returned."""
        return cls(*np.split(rows, 2, axis=1))

    def scale(self) -> NDArray[np.float64]:
        """Return the norms that errors are divided by, (n, fields)."""
        floor = NORM_FLOOR * np.sqrt(np.mean(self.true**2, axis=0))
        # The error of a field that is zero in every sample is relative to 1 in the field's unit.
        scale: NDArray[np.float64] = np.maximum(self.true, np.where(floor > 0, floor, 1.0))
        return scale

    def summary(self, spec: SampleSpec) -> Errors:
        """Compute all figures.

        Args:
            spec: layout of a sample.

        Raises:
            ValueError: there is no time step.
        """
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
