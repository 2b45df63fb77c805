"""A buffer's contents in a checkpoint, and whether they fit the buffer that is to take them over."""

from __future__ import annotations

from typing import Any, TypedDict

from penstock_server.buffer.policies import PolicyName
from penstock_server.buffer.population import Population
from penstock_server.buffer.storage import Storage


class BufferState(TypedDict):
    """arrays: samples in the order that random draws refer to; inputs and targets are `SnapshotRows` where a buffer gives its state, arrays
    where it takes one over. meta: for JSON."""

    arrays: dict[str, Any]
    meta: dict[str, Any]


def check_state(state: BufferState, policy: PolicyName, storage: Storage, capacity: int) -> Population:
    """The population that the state describes, its samples in the first slots. ValueError for a state that does not fit."""
    arrays, meta = state["arrays"], state["meta"]
    number = len(arrays["inputs"])
    if meta["policy"] != policy:
        raise ValueError(
            f"the checkpoint's buffer has policy {meta['policy']!r}, this one {policy!r}: resume with the checkpoint's policy"
        )
    for name, here in (("inputs", storage.inputs), ("targets", storage.targets)):
        if arrays[name].shape[1:] != here.shape[1:]:
            raise ValueError(
                f"the checkpoint's {name} have shape {arrays[name].shape[1:]} a sample, expected {here.shape[1:]}: "
                "resume with the checkpoint's window, parameters and fields"
            )
    if number > capacity:
        raise ValueError(f"the checkpoint holds {number} samples, capacity is {capacity}: raise the capacity to resume")
    population = Population.of(storage.slots, int(meta["unseen"]), arrays["arrival"].tolist())
    if len(population) != number:
        raise ValueError(f"the checkpoint is damaged: {number} samples, order of arrival of {len(population)}")
    return population
