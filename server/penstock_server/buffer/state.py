"""The state of a buffer in a checkpoint: taking it, checking it, and loading it into an unused buffer."""

from __future__ import annotations

import threading
from dataclasses import asdict
from typing import Any, TypedDict

import numpy as np

from penstock_server.buffer.contents import Contents
from penstock_server.buffer.journal import Journal
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


class Moment:
    """The state of a buffer at one moment, while the buffer is used further.

    Args:
        contents: samples of the buffer.
        snapshot: snapshot of the same samples, which delivers inputs and targets later.
        meta: policy, counters and generator; see `BufferState`. The caller holds the buffer's lock.
    """

    def __init__(self, contents: Contents, snapshot: BufferSnapshot, meta: dict[str, Any]) -> None:
        population = contents.population
        self._held, self._slots = len(population), contents.storage.slots
        self._snapshot, self._meta = snapshot, meta
        self._left = contents.times_seen.removed.copy()
        self._journals = {
            "order": Journal(population.order),
            "simulation": Journal(contents.simulation),
            "sample": Journal(contents.sample),
            "times_seen": Journal(contents.times_seen.held),
            "arrived": Journal(population.arrived),
        }

    def state(self, lock: threading.Lock) -> BufferState:
        """Return the state; to be called once, without the lock.

        Args:
            lock: lock of the buffer.
        """
        try:
            copies = {name: journal.copy(self._slots) for name, journal in self._journals.items()}
        finally:
            with lock:
                for journal in self._journals.values():
                    journal.end()
        for name, copy in copies.items():
            self._journals[name].restore(copy)
        held = copies["order"][: self._held].copy()
        self._snapshot.locate(held)
        arrays = {name: copies[name][held] for name in ("simulation", "sample", "times_seen")}
        return {
            "arrays": {
                "inputs": self._snapshot.inputs,
                "targets": self._snapshot.targets,
                **arrays,
                "times_seen_left": self._left,
                "arrival": np.argsort(copies["arrived"][held]),
            },
            "meta": self._meta,
        }


def take_moment(
    contents: Contents, snapshot: BufferSnapshot, policy: PolicyName, put_blocked_seconds: float, stall_seconds: float
) -> Moment:
    """Return the moment that a state is to be of; the caller holds the buffer's lock, for microseconds.

    Args:
        contents: samples of the buffer.
        snapshot: snapshot of the same samples, which delivers inputs and targets later.
        policy: policy of the buffer.
        put_blocked_seconds: time that producers have waited.
        stall_seconds: time that training has waited.
    """
    meta = {
        "policy": policy,
        "unseen": contents.population.unseen,
        "counters": asdict(contents.counters),
        "put_blocked_seconds": put_blocked_seconds,
        "stall_seconds": stall_seconds,
        "rng": contents.rng.bit_generator.state,
    }
    return Moment(contents, snapshot, meta)


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
        if arrays[name].shape[1:] != here.shape[1:]:
            raise ValueError(
                f"the checkpoint's {name} have shape {arrays[name].shape[1:]} a sample, expected {here.shape[1:]}: "
                "resume with the checkpoint's window, parameters and fields"
            )
    if number > capacity:
        raise ValueError(f"the checkpoint holds {number} samples, capacity is {capacity}: raise the capacity to resume")
    population = Population.restored(storage.slots, int(meta["unseen"]), arrays["arrival"])
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
    contents.storage.inputs[:number] = arrays["inputs"]
    contents.storage.targets[:number] = arrays["targets"]
    contents.simulation.values[:number] = arrays["simulation"]
    contents.sample.values[:number] = arrays["sample"]
    contents.times_seen.load(arrays["times_seen"], arrays["times_seen_left"])
    contents.population = population
    contents.counters = Counters(**meta["counters"])
    contents.rng.bit_generator.state = meta["rng"]
