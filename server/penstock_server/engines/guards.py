"""Warnings of a study that ends well and may yet be wrong; docs/report.md tells what to do about each."""

from __future__ import annotations

from collections.abc import Iterator

from penstock_server.engines.results import StudyResults
from penstock_server.ingest import merged, without_effect
from penstock_server.study import Study
from penstock_server.validation import ValidationResult

DISAGREE = 100.0
"""Factor between the two relative errors above which relative L2 is due to the mean of the field."""


def study_warnings(study: Study, results: StudyResults) -> list[str]:
    """Return what a study should be looked at for.

    Args:
        study: the study.
        results: what coordinator and trainer ranks say at the end.
    """
    found = without_effect(tuple(study.parameters.bounds), merged(dict(r.fingerprints) for r in results.ranks))
    validation = results.ranks[0].validation
    return [
        *([found] if found else []),
        *(_validation(validation) if validation is not None else ()),
        *_reservoir(study, results),
    ]


def _validation(validation: ValidationResult) -> Iterator[str]:
    for name, field in validation.errors.fields.items():
        ratio, relative = field["rmse_to_std"], field["relative_l2"]
        if ratio is None:
            continue
        if ratio >= 1:
            yield (
                f"field {name}: the model is no better than the mean of the held-out data (error / standard deviation "
                f"= {ratio:.3g}): train longer, or on more simulations"
            )
        if ratio >= DISAGREE * relative:
            yield (
                f"field {name}: relative L2 {relative:.2g} is small because the field's mean is large; relative to "
                f"its variation the error is {ratio:.2g}"
            )


def _reservoir(study: Study, results: StudyResults) -> Iterator[str]:
    """Compare the reservoir with the samples of the simulations that run at once."""
    counts = results.coordinator.simulations
    training = counts.finished - study.solver.validation_simulations
    if study.training.source is not None or study.buffer.policy != "reservoir" or training < 1:
        return
    each = results.coordinator.expected // training
    together = min(study.solver.concurrency, study.solver.simulations)
    capacity = sum(r.buffer.capacity for r in results.ranks if r.buffer is not None)
    if capacity < together * each and together * each < results.coordinator.expected:
        yield (
            f"the reservoir holds {capacity} samples, {together} simulations at once send {together * each}: it never "
            f"holds much more than what runs now, so that training forgets; set [buffer] capacity above {together * each}"
        )
