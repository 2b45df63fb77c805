"""The state of a buffer in a checkpoint: taking it, checking it, and loading it into an unused buffer."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, TypedDict

import numpy as np

from penstock_server.buffer.contents import Contents
from penstock_server.buffer.policies import PolicyName
from penstock_server.buffer.population import Population
from penstock_server.buffer.snapshot import BufferSnapshot
from penstock_server.buffer.stats import Counters
from penstock_server.buffer.storage import SampleStorage


class BufferState(TypedDict):
    """The state of a buffer.

    Attributes:
        arrays: samples in the order that random draws refer to, their identifiers and counts. `inputs` and `targets`
            are `SnapshotRows` in the state that a buffer returns, arrays in the state that it loads.
        meta: policy, counters and generator, for JSON.
    """

    arrays: dict[str, Any]
    meta: dict[str, Any]


def take_state(
    contents: Contents,
    snapshot: BufferSnapshot,
    policy: PolicyName,
    *,
    put_blocked_seconds: float,
    stall_seconds: float,
) -> BufferState:
    """Return the state of a buffer; the caller holds the buffer's lock.

    Args:
        contents: samples of the buffer.
        snapshot: snapshot of the same samples, which delivers inputs and targets later.
        policy: policy of the buffer.
        put_blocked_seconds: time that producers have waited.
        stall_seconds: time that training has waited.
    """
    held = contents.population.held()
    position = np.empty(contents.storage.slots, dtype=np.int64)
    position[held] = np.arange(len(held))
    return {
        "arrays": {
            "inputs": snapshot.inputs,
            "targets": snapshot.targets,
            "simulation": contents.simulation[held],
            "sample": contents.sample[held],
            "times_seen": contents.times_seen.held[held],
            "times_seen_left": contents.times_seen.removed.copy(),
            "arrival": position[contents.population.arrivals()],
        },
        "meta": {
            "policy": policy,
            "unseen": contents.population.unseen,
            "counters": asdict(contents.counters),
            "put_blocked_seconds": put_blocked_seconds,
            "stall_seconds": stall_seconds,
            "rng": contents.rng.bit_generator.state,
        },
    }


def check_state(state: BufferState, policy: PolicyName, storage: SampleStorage, capacity: int) -> Population:
    """Check that a state fits a buffer.

    Args:
        state: state to load.
        policy: policy of the buffer.
        storage: storage of the buffer.
        capacity: largest number of samples that the buffer holds.

    Returns:
        The population that the state describes, its samples in the first slots.

    Raises:
        ValueError: the state does not fit the buffer, or is damaged.
    """
    arrays, meta = state["arrays"], state["meta"]
    number = len(arrays["inputs"])
    if meta["policy"] != policy:
        raise ValueError(
            f"the checkpoint's buffer has policy {meta['policy']!r}, this one {policy!r}: "
            "resume with the checkpoint's policy"
        )
    for name, here in (("inputs", storage.inputs), ("targets", storage.targets)):
        if tuple(arrays[name].shape[1:]) != tuple(here.shape[1:]):
            raise ValueError(
                f"the checkpoint's {name} have shape {arrays[name].shape[1:]} a sample, expected {tuple(here.shape[1:])}: "
                "resume with the checkpoint's window, parameters and fields"
            )
    if number > capacity:
        raise ValueError(f"the checkpoint holds {number} samples, capacity is {capacity}: raise the capacity to resume")
    population = Population.restored(storage.slots, int(meta["unseen"]), arrays["arrival"].tolist())
    if len(population) != number:
        raise ValueError(f"the checkpoint is damaged: {number} samples, order of arrival of {len(population)}")
    return population


def load_state(contents: Contents, state: BufferState, population: Population) -> None:
    """Load a state into unused contents; the caller holds the buffer's lock.

    Args:
        contents: contents of an unused buffer.
        state: state that `check_state` accepted.
        population: population that `check_state` returned.
    """
    arrays, meta = state["arrays"], state["meta"]
    number = len(arrays["inputs"])
    contents.storage.load(arrays["inputs"], arrays["targets"])
    contents.simulation[:number] = arrays["simulation"]
    contents.sample[:number] = arrays["sample"]
    contents.times_seen.load(arrays["times_seen"], arrays["times_seen_left"])
    contents.population = population
    contents.counters = Counters(**meta["counters"])
    contents.rng.bit_generator.state = meta["rng"]
