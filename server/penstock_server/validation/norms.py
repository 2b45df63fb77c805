"""Errors of predictions: L2 norms over each field of each time step, and figures over many time steps."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
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
        rmse_to_std: root mean square error / standard deviation of the truth over all points, time steps and
            simulations that are held out, about the mean of each component. 1 is the error of a model that always
            predicts that mean. None where the truth does not vary.
    """

    mse: float
    relative_l2: float
    relative_l2_p99: float
    relative_l2_max: float
    rmse_to_std: float | None


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
        rmse_to_std: mean of the fields' figures of this name; None where no field varies.
    """

    mse: float
    relative_l2: float
    relative_l2_p99: float
    relative_l2_max: float
    fields: dict[str, FieldErrors]
    samples: int
    floored: int
    runaway: int
    rmse_to_std: float | None = None


@dataclass(frozen=True)
class Norms:
    """L2 norms of n predicted time steps.

    Attributes:
        errors: norm of the error of each field, (n, fields) float64.
        true: norm of the true field, (n, fields) float64.
        spread: norm of the true field less the mean of each component over its points, (n, fields) float64.
        means: these means, (n, components of all fields) float64.
    """

    errors: NDArray[np.float64]
    true: NDArray[np.float64]
    spread: NDArray[np.float64]
    means: NDArray[np.float64]

    @classmethod
    def of(cls, spec: SampleSpec, prediction: Tensor, true: Tensor, of_truth: NDArray[np.float64]) -> Norms:
        """Compute the norms of predictions.

        Args:
            spec: layout of a sample.
            prediction: predicted target rows, (n, width), raw units.
            true: true target rows, (n, width), raw units.
            of_truth: what `truth_norms` returns for `true`.
        """
        return cls.of_difference(spec, prediction - true, of_truth)

    @classmethod
    def of_difference(cls, spec: SampleSpec, difference: Tensor, of_truth: NDArray[np.float64]) -> Norms:
        """Compute the norms of rows of any other meaning than an error, such as a spread.

        Args:
            spec: layout of a sample.
            difference: rows, (n, width), raw units.
            of_truth: what `truth_norms` returns for the true rows.
        """
        errors = torch.stack([_norm(difference[:, c]) for c in spec.columns().values()], dim=1)
        return cls.from_rows(np.concatenate([errors.cpu().numpy(), of_truth], axis=1), spec)

    @classmethod
    def join(cls, parts: list[Norms]) -> Norms:
        """Concatenate norms of several sets of time steps."""
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in dataclass_fields(cls)))

    @classmethod
    def none(cls, spec: SampleSpec) -> Norms:
        """Return the norms of no time step."""
        return cls.from_rows(np.empty((0, cls.columns(spec))), spec)

    @staticmethod
    def columns(spec: SampleSpec) -> int:
        """Return the length of a row of `rows`."""
        return len(spec.fields) + truth_columns(spec)

    def rows(self) -> NDArray[np.float64]:
        """Return all norms as one array (n, columns), to be sent to other ranks."""
        return np.concatenate([self.errors, self.true, self.spread, self.means], axis=1)

    @classmethod
    def from_rows(cls, rows: NDArray[np.float64], spec: SampleSpec) -> Norms:
        """Restore the norms from what `rows` returned."""
        n = len(spec.fields)
        errors, true, spread, means = np.split(rows, [n, 2 * n, 3 * n], axis=1)
        return cls(errors, true, spread, means)

    def deviations(self, spec: SampleSpec) -> NDArray[np.float64]:
        """Return the standard deviation of each field over all points and time steps, (fields,).

        Rounding of a constant to float32 counts as no variation: the result is 0 for it.
        """
        out, at = np.zeros(len(spec.fields)), 0
        for i, field in enumerate(spec.fields):
            means = self.means[:, at : at + field.components]
            at += field.components
            between = field.points * np.square(means - means.mean(axis=0)).sum(axis=1)
            variance = float((self.spread[:, i] ** 2 + between).mean()) / field.size
            rounding = float(np.finfo(np.float32).eps) * np.sqrt(np.mean(self.true[:, i] ** 2) / field.size)
            out[i] = np.sqrt(variance) if np.sqrt(variance) > rounding else 0.0
        return out

    def scale(self) -> NDArray[np.float64]:
        """Return the norms that errors are divided by, (n, fields)."""
        floor = NORM_FLOOR * np.sqrt(np.mean(self.true**2, axis=0))
        # The error of a field that is zero in every sample is relative to 1 in the field's unit.
        scale: NDArray[np.float64] = np.maximum(self.true, np.where(floor > 0, floor, 1.0))
        return scale

    def ratios(self) -> NDArray[np.float64]:
        """Return the relative L2 error of each field of each time step, at most RUNAWAY, (n, fields)."""
        scale = self.scale()
        ratios: NDArray[np.float64] = self._limited(scale) / scale
        return ratios

    def _limited(self, scale: NDArray[np.float64]) -> NDArray[np.float64]:
        limit = RUNAWAY * scale
        return np.where(np.isfinite(self.errors), np.minimum(self.errors, limit), limit)

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
        errors = self._limited(scale)
        ratios = errors / scale
        squares = np.sum(errors**2, axis=0)
        deviations = self.deviations(spec)
        fields: dict[str, FieldErrors] = {}
        for i, field in enumerate(spec.fields):
            mean, p99, largest = _spread(ratios[:, i])
            fields[field.name] = {
                "mse": float(squares[i]) / (len(errors) * field.size),
                "relative_l2": mean,
                "relative_l2_p99": p99,
                "relative_l2_max": largest,
                "rmse_to_std": _ratio(float(squares[i]) / (len(errors) * field.size), float(deviations[i])),
            }
        known = [f["rmse_to_std"] for f in fields.values() if f["rmse_to_std"] is not None]
        return Errors(
            float(squares.sum()) / (len(errors) * spec.width),
            *_spread(ratios),
            fields=fields,
            samples=len(errors),
            floored=int(np.count_nonzero(self.true < scale)),
            runaway=int(np.count_nonzero(errors == RUNAWAY * scale)),
            rmse_to_std=sum(known) / len(known) if known else None,
        )


def truth_columns(spec: SampleSpec) -> int:
    """Return the number of columns of `truth_norms`."""
    return 2 * len(spec.fields) + sum(f.components for f in spec.fields)


def truth_norms(spec: SampleSpec, true: Tensor) -> NDArray[np.float64]:
    """Compute the norms of the true fields.

    Args:
        spec: layout of a sample.
        true: true target rows, (n, width), raw units.

    Returns:
        `true`, `spread` and `means` of `Norms` side by side, (n, truth_columns).
    """
    norms, spread, means = [], [], []
    for field, columns in zip(spec.fields, spec.columns().values(), strict=True):
        values = true[:, columns].reshape(-1, field.points, field.components).double()
        mean = values.mean(dim=1, keepdim=True)
        norms.append(_norm(true[:, columns]))
        means.append(mean[:, 0])
        spread.append(_norm((values - mean).flatten(1)))
    figures = torch.cat([torch.stack(norms, dim=1), torch.stack(spread, dim=1), *means], dim=1)
    return figures.cpu().numpy()


def _norm(rows: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
    return norms


def _ratio(mse: float, deviation: float) -> float | None:
    return float(np.sqrt(mse)) / deviation if deviation > 0 else None


def _spread(ratios: NDArray[Any]) -> tuple[float, float, float]:
    return float(ratios.mean()), float(np.quantile(ratios, 0.99)), float(ratios.max())
