"""A few held-out time steps, true and predicted, for pictures: validation_snapshots.h5 in the run directory.

This is a bounded sample (two simulations, three time steps each, unless asked otherwise), not the held-out set and no dataset:
held-out simulations stay in memory.

Layout: attributes `format`, `batches`, `parameters` (names, the time last); a group per picture,
`0`, `1`, ..., with attributes `simulation`, `step`, `inputs` and datasets `FIELD/true`, `FIELD/prediction` (*shape, components).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from penstock_client.atomic_file import replacing
from penstock_server.training import Trainer
from penstock_server.validation.store import ValidationStore

FILE = "validation_snapshots.h5"
Fields = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Snapshot:
    """One held-out time step. inputs: by name, `time` last. true, prediction: each field (*shape, components), raw units."""

    simulation: int
    step: int
    inputs: dict[str, float]
    true: Fields
    prediction: Fields


@dataclass(frozen=True)
class Snapshots:
    """What the file holds. batches: training batches behind the predictions."""

    batches: int
    items: list[Snapshot]


def take_snapshots(
    store: ValidationStore,
    trainer: Trainer,
    *,
    simulations: int = 2,
    steps: int = 3,
) -> Snapshots:
    """Predict the time steps nearest to evenly spaced shares of the first few held-out simulations.

    With steps = 3: at a third, two thirds and the end of each. Gives no items while nothing is held.
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
    pairs = pairs[:: store.spec.bundle]  # of a bundle, its first time step
    for (simulation, step), (prediction, true) in zip(keys, pairs, strict=True):
        inputs = store.time_step(simulation, step)[0].tolist()
        named = [{k: v.cpu().numpy() for k, v in store.spec.split(row).items()} for row in (true, prediction)]
        items.append(Snapshot(simulation, step, dict(zip(names, inputs, strict=True)), *named))
    return Snapshots(trainer.batches, items)


def write_snapshots(path: Path, snapshots: Snapshots) -> None:
    """Write to `path`, replacing what is there in one move."""
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


def read_snapshots(path: Path) -> Snapshots:
    """The inverse of `write_snapshots`. Raises OSError when `path` is no such file."""
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
            )
            for group in groups
        ]
        return Snapshots(int(file.attrs["batches"]), items)


def _fields(group: Mapping[str, Any], kind: str) -> Fields:
    return {name: group[name][kind][...] for name in group}
