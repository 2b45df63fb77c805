"""A few held-out time steps for plotting, true and predicted: validation_snapshots.h5 in the run directory.

The file has a bounded number of time steps (by default three of each of two simulations); the held-out set itself stays
in memory.

Layout: attributes `format`, `batches`, `parameters` (names, the time last); for each time step a group `0`, `1`, ...
with attributes `simulation`, `step`, `inputs` and datasets `FIELD/true`, `FIELD/prediction` (*shape, components). Where a
field has a reference ([fields]), it has been subtracted, and is the attribute `reference` of `FIELD`.
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
from penstock_server.training import Trainer
from penstock_server.validation.store import ValidationStore

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
    """

    batches: int
    items: list[Snapshot]


def take_snapshots(
    store: ValidationStore,
    trainer: Trainer,
    *,
    simulations: int = 2,
    steps: int = 3,
) -> Snapshots:
    """Predict evenly spaced time steps of the first held-out simulations.

    Args:
        store: held-out time steps.
        trainer: the model.
        simulations: number of simulations.
        steps: number of time steps of each; with 3 they are at a third, two thirds and the end.

    Returns:
        The time steps; none while nothing is held.
    """
    by_simulation: dict[int, list[int]] = {}
    for simulation, step in store.predictable():
        by_simulation.setdefault(simulation, []).append(step)
    keys = []
    for simulation, held in list(by_simulation.items())[:simulations]:
        places = {max(0, round(len(held) * k / steps) - 1) for k in range(1, steps + 1)}
        keys += [(simulation, held[p]) for p in sorted(places)]
    items = []
    names = (*store.spec.parameters, "time")
    pairs = [pair for chunk in store.predict(trainer, keys) for pair in zip(*chunk, strict=True)]
    pairs = pairs[:: store.spec.bundle]  # the first time step of each bundle
    for (simulation, step), (prediction, true) in zip(keys, pairs, strict=True):
        inputs = store.time_step(simulation, step)[0].tolist()
        shown, predicted = (
            {k: v.cpu().numpy() for k, v in store.spec.split(row).items()} for row in (true, prediction)
        )
        references = {f.name: f.reference for f in store.spec.fields if f.reference}
        named = dict(zip(names, inputs, strict=True))
        items.append(Snapshot(simulation, step, named, shown, predicted, references))
    return Snapshots(trainer.batches, items)


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
        return Snapshots(int(file.attrs["batches"]), items)


def _fields(group: Mapping[str, Any], kind: str) -> Fields:
    return {name: group[name][kind][...] for name in group}
