"""Whether a study can be trained on a recording."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from penstock_server.recording.recording import Recording
from penstock_server.study import Study


def check_recording(recording: Recording, study: Study) -> list[str]:
    """Find what prevents a study from training on a recording.

    Args:
        recording: the recording.
        study: the study.

    Returns:
        A line for each problem, beginning with its place in the study file: "[table] key = value: ...".
    """
    return [*_contents(recording, study), *_amounts(recording, study)]


def _contents(recording: Recording, study: Study) -> Iterator[str]:
    here = f"[training] source = {str(recording.path)!r}"
    parameters = tuple(study.parameters.bounds)
    if recording.parameters != parameters:
        yield (
            f"{here} has the parameters {_listed(recording.parameters)}, the study's model sees {_listed(parameters)}: "
            "record this study, or write [parameters] as they were recorded"
        )
    recorded = {field.name: field for field in recording.fields}
    if list(recorded) != list(study.fields):
        yield (
            f"{here} has the fields {_listed(recorded)}, the study {_listed(study.fields)}: record this study, or "
            "write [fields] as they were recorded"
        )
    for name, section in study.fields.items():
        field = recorded.get(name)
        if field is None:
            continue
        if section.components not in (None, field.components):
            yield (
                f"[fields] {name}.components = {section.components}: {recording.path} has {field.components}; "
                "correct it or leave it out"
            )
        if section.shape is not None and tuple(section.shape) != field.shape:
            yield (
                f"[fields] {name}.shape = {list(section.shape)}: {recording.path} has {list(field.shape)}; "
                "correct it or leave it out"
            )
        if section.reference != field.reference:
            yield (
                f"[fields] {name}.reference = {section.reference:.17g}: {recording.path} was recorded with "
                f"{field.reference:.17g}; write that, or record it again"
            )
    if (recording.time, study.samples.time) == ("step", "physical"):
        yield (
            f'[samples] time = "physical": {recording.path} was recorded without physical times; record the study with '
            'it, or set time = "step"'
        )


def _amounts(recording: Recording, study: Study) -> Iterator[str]:
    """Check the number of simulations and their lengths; failed simulations may be short."""
    solver, samples = study.solver, study.samples
    needed = {"simulations": samples.window, "validation_simulations": 1 if samples.window == 1 else 2 * samples.bundle}
    kinds = {
        "simulations": (recording.training(), solver.simulations, "to train on"),
        "validation_simulations": (recording.validation(), solver.validation_simulations, "held out"),
    }
    for key, (there, wanted, purpose) in kinds.items():
        if len(there) < wanted:
            yield f"[solver] {key} = {wanted}: {recording.path} has {len(there)} {purpose}; lower it or record more"
            continue
        short = _too_short(recording, there[:wanted], needed[key])
        if short:
            yield (
                f"[samples] window = {samples.window}, bundle = {samples.bundle}: {short} in {recording.path}; lower "
                "them, or record more time steps"
            )


def _too_short(recording: Recording, simulations: NDArray[np.int64], needed: int) -> str:
    """Say which simulation is too short for a sample; "" where none is."""
    steps = recording.steps[simulations]
    short = simulations[recording.finished[simulations] & (steps < needed)]
    if len(short):
        return f"expected {needed} time steps or more, simulation {short[0]} has {recording.steps[short[0]]}"
    if len(simulations) and steps.max() < needed:
        return f"expected {needed} time steps or more, the longest simulation has {steps.max()} (all have failed)"
    return ""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
