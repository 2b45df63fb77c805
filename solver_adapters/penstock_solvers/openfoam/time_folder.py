"""Writing time folders of a case: given values inside, the boundary conditions of the start time around them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penstock_solvers.openfoam.control import Control, adapts_time_step
from penstock_solvers.openfoam.dictionary import FoamDictionary
from penstock_solvers.openfoam.errors import CaseError
from penstock_solvers.openfoam.understand import understood

KINDS = {1: "scalar", 3: "vector", 6: "symmTensor", 9: "tensor"}
"""OpenFOAM's names of values, by their number of components."""


def time_of_step(case: Path, control: Control, step: float, every: int) -> float:
    """Return the physical time of a streamed time step, for cases whose time steps are equal.

    Args:
        case: the case.
        control: settings of its controlDict.
        step: number of the time step, 0 for the first that is streamed.
        every: every n-th time step of the solver is streamed.

    Raises:
        CaseError: the size of a time step is not known, or changes during the run.
    """
    dictionary = FoamDictionary(case / "system" / "controlDict", f"{case}/system/controlDict")
    text = understood(case, dictionary, "deltaT")
    try:
        size = float(text or "")
    except ValueError:
        raise CaseError(f"{dictionary.name}: deltaT = {text}: expected a number, to find the time of a step") from None
    if adapts_time_step(case):
        raise CaseError(
            f"{dictionary.name} says adjustTimeStep, so a time step's number does not tell its time: train the model "
            'with [samples] time = "physical"'
        )
    return float(control.start) + (step + 1) * every * size


def write_time_folder(case: Path, start: str, time: float, fields: Mapping[str, NDArray[np.floating]]) -> Path:
    """Write fields as a time folder.

    Args:
        case: the case, with its mesh and the folder of the start time.
        start: name of that folder.
        time: time of the new folder, in the case's units.
        fields: values in the cells by name, (cells, components); the name of a field of another region is
            "region:field".

    Returns:
        The new folder.

    Raises:
        CaseError: a field has no file in the folder of the start time, which would give its boundary conditions, or
            one that cannot be changed.
    """
    folder = case / f"{time:.6g}"
    for name, values in fields.items():
        place = Path(*name.split(":"))
        dictionary = FoamDictionary(case / start / place, f"{start}/{place}")
        if dictionary.get("FoamFile.format") == "binary":
            raise CaseError(
                f"{dictionary.name} is binary: expected text, so that values can be set in it; run foamFormatConvert in "
                "the template case"
            )
        dictionary.set("internalField", _nonuniform(name, values))
        if dictionary.get("FoamFile.location") is not None:
            dictionary.set("FoamFile.location", f'"{folder.name}"')
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        dictionary.write(target)
    return folder


def _nonuniform(name: str, values: NDArray[np.floating]) -> str:
    """Values as OpenFOAM's text of an internalField."""
    cells, components = values.shape
    if components not in KINDS:
        raise CaseError(
            f"field {name} has {components} components: OpenFOAM has values of {', '.join(map(str, KINDS))}"
        )
    text = io.StringIO()
    # Nine digits distinguish any two float32.
    np.savetxt(text, values, fmt="%.9g" if components == 1 else f"({' '.join(['%.9g'] * components)})")
    return f"nonuniform List<{KINDS[components]}>\n{cells}\n(\n{text.getvalue()})\n"
