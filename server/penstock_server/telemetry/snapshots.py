"""validation_snapshots.h5 in the run directory: a few held-out time steps for pictures, true and predicted.

The file has a bounded size; the held-out set itself stays in memory. It is replaced as a whole after a validation, and
at the end.

Layout: attributes `format`, `batches`, `parameters` (names, the time last); for each time step a group `0`, `1`, ...
with attributes `simulation`, `step`, `inputs` and datasets `FIELD/true`, `FIELD/prediction` (*shape, components). Where a
field has a reference ([fields]), it has been subtracted, and is the attribute `reference` of `FIELD`. The datasets
`held_out` and `relative_l2` have the id and the error of each held-out simulation.

This module needs no torch, so that programs which only look at a study start quickly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from penstock_client.atomic_file import replacing

FILE = "validation_snapshots.h5"
"""Name of the file in the run directory."""

Fields = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Snapshot:
    """One held-out time step.

    Attributes:
        simulation: id of the simulation.
        step: number of the time step.
        inputs: parameter name to value, `time` last.
        true: field name to values (*shape, components), raw units.
        prediction: the same for the predicted fields.
        references: what has been subtracted from a field, by name; fields without are left out.
    """

    simulation: int
    step: int
    inputs: dict[str, float]
    true: Fields
    prediction: Fields
    references: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshots:
    """The content of validation_snapshots.h5.

    Attributes:
        batches: number of batches that the model had been trained on.
        items: the time steps.
        errors: relative L2 error of each held-out simulation, the mean over its time steps and fields.
    """

    batches: int
    items: list[Snapshot]
    errors: dict[int, float] = field(default_factory=dict)


def write_snapshots(path: Path, snapshots: Snapshots) -> None:
    """Write the file atomically.

    Args:
        path: file to write.
        snapshots: its content.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update({"format": 1, "batches": snapshots.batches})
        file.attrs["parameters"] = list(snapshots.items[0].inputs) if snapshots.items else []
        file["held_out"] = np.array(list(snapshots.errors), dtype=np.int64)
        file["relative_l2"] = np.array(list(snapshots.errors.values()), dtype=np.float64)
        for number, item in enumerate(snapshots.items):
            group = file.create_group(str(number))
            group.attrs.update({"simulation": item.simulation, "step": item.step})
            group.attrs["inputs"] = np.array(list(item.inputs.values()))
            for kind, fields in (("true", item.true), ("prediction", item.prediction)):
                for name, values in fields.items():
                    group[f"{name}/{kind}"] = values
            for name, reference in item.references.items():
                group[name].attrs["reference"] = reference


def read_snapshots(path: Path) -> Snapshots:
    """Read what `write_snapshots` wrote.

    Args:
        path: file to read.

    Raises:
        OSError: the file is missing or no HDF5 file.
        KeyError: the file has another layout.
    """
    with h5py.File(path, "r") as file:
        names = [str(n) for n in file.attrs["parameters"]]
        groups = [file[key] for key in sorted((k for k in file if k.isdigit()), key=int)]
        items = [
            Snapshot(
                int(group.attrs["simulation"]),
                int(group.attrs["step"]),
                dict(zip(names, (float(v) for v in group.attrs["inputs"]), strict=True)),
                _fields(group, "true"),
                _fields(group, "prediction"),
                {name: float(group[name].attrs["reference"]) for name in group if "reference" in group[name].attrs},
            )
            for group in groups
        ]
        errors = {}
        if "held_out" in file:  # older versions wrote none
            errors = dict(zip(file["held_out"][...].tolist(), file["relative_l2"][...].tolist(), strict=True))
        return Snapshots(int(file.attrs["batches"]), items, errors)


def _fields(group: Mapping[str, Any], kind: str) -> Fields:
    return {name: group[name][kind][...] for name in group}
