"""Warnings about the data that a rank has trained on, for the report."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from penstock_server.trainer_rank.context import RankContext
from penstock_server.training import Normaliser
from penstock_server.training.normalisation import constant_columns
from penstock_server.training.welford import Welford

COARSE = 30.0
"""A standard deviation of fewer float32 steps than this is distorted by rounding."""


def data_warnings(context: RankContext, normaliser: Normaliser) -> tuple[str, ...]:
    """Return warnings about fields that do not vary, vary less than float32 can hold, or jump.

    Args:
        context: the rank; rank 0 speaks for all, whose statistics it knows.
        normaliser: has the statistics of the training samples.
    """
    if not context.over:
        return ()
    jumps = tuple(
        f"{jump}: one bad sample makes all others look alike; see that the solver's numbers are right"
        for jump in normaliser.jumps()
    )
    if context.rank:
        return jumps
    fields = normaliser.field_statistics()
    references = {field.name: field.reference for field in normaliser.spec.fields}
    lines = (line for name, statistics in fields.items() for line in _of_field(name, statistics, references[name]))
    return (*lines, *jumps)


def _of_field(name: str, statistics: Welford, reference: float) -> Iterator[str]:
    if not statistics.count:
        return
    mean, std, constant = statistics.mean, statistics.std, constant_columns(statistics, sisters=True)
    step = np.spacing(np.abs(mean).astype(np.float32)).astype(np.float64)
    for i in range(len(mean)):
        remedy = (
            f"set [fields.{name}] reference = {reference + mean[i]:.9g}, which is subtracted before, and send the field as "
            "float64"
        )
        what = f"field {name}" if len(mean) == 1 else f"component {i} of field {name}"
        if mean[i] and 0 < std[i] < COARSE * step[i]:
            yield (
                f"{what} varies by {std[i]:.2g} about {mean[i]:.9g}, and samples are float32, with steps of "
                f"{step[i]:.2g} there: {remedy}"
            )
        elif constant[i] and not (std > 0).any():
            lost = f"; a variation below {step[i]:.2g} would be lost in float32: {remedy}" if mean[i] else _ZERO
            yield f"{what} never varies: it is {mean[i]:.9g} in all samples, which is what is predicted{lost}"
        elif constant[i]:
            yield f"{what} never varies: it stays at {mean[i]:.3g} in all samples, which is what is predicted"


_ZERO = "; values below 1e-45 become 0 in float32: send them in another unit"
