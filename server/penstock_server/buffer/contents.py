"""The contents of a buffer: its samples, their identifiers, how often each was drawn, and the random generator."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from weakref import WeakSet

import numpy as np

from penstock_server.buffer.policies import Evictor, Selector
from penstock_server.buffer.population import Population
from penstock_server.buffer.snapshot import BufferSnapshot
from penstock_server.buffer.stats import BufferStats, Counters, TimesSeen
from penstock_server.buffer.storage import Floats, Indices, SampleStorage
from penstock_server.study import Batch


@dataclass(eq=False)
class Slot:
    """Memory for one sample, reserved for one producer, which fills it.

    Attributes:
        inputs: (window, n_inputs) float32, not initialised.
        targets: (window, width) float32, not initialised.
        index: slot of the storage; None where the sample has memory of its own.
        simulation: id of the simulation, set by the producer before `commit`.
        sample: number of the sample in its simulation, set by the producer before `commit`.
        open: False once the slot has been committed or discarded.
    """

    inputs: Floats
    targets: Floats
    index: int | None
    simulation: int = -1
    sample: int = -1
    open: bool = field(default=True, repr=False)

    def check_open(self) -> None:
        """Raise ValueError if the slot has been committed or discarded."""
        if not self.open:
            raise ValueError(
                f"the slot of simulation {self.simulation}, sample {self.sample} has been committed or discarded before"
            )


class Contents:
    """The samples of a buffer. Not thread-safe: the buffer holds its lock during every call.

    Args:
        storage: memory for the samples.
        seed: seed of all random draws and evictions.

    Attributes:
        storage: inputs and targets of all slots.
        population: state of each slot.
        times_seen: number of draws of each sample.
        simulation: id of the simulation of each slot's sample, (slots,) int64.
        sample: number of each slot's sample in its simulation, (slots,) int64.
        counters: running counts.
        rng: generator of all draws and evictions.
    """

    def __init__(self, storage: SampleStorage, *, seed: int) -> None:
        self.storage, slots = storage, storage.slots
        self.population = Population(slots)
        self.times_seen = TimesSeen(slots)
        self.simulation: Indices = np.full(slots, -1, dtype=np.int64)
        self.sample: Indices = np.full(slots, -1, dtype=np.int64)
        self.counters = Counters()
        self.rng = np.random.default_rng(seed)
        self._snapshots: WeakSet[BufferSnapshot] = WeakSet()  # those that may still be read

    @property
    def unused(self) -> bool:
        """Whether nothing has been put or drawn, and no slot is being filled."""
        return self.counters == Counters() and not self.population.filling

    def insert(self, slot: Slot) -> None:
        """Turn a filled slot into the newest, unseen sample."""
        index = slot.index
        if index is None:
            index = self.population.take_free()
            self.counters.spilled += self.storage.in_place
            self.storage.put(index, slot.inputs, slot.targets)
        slot.open = False
        self.simulation[index] = slot.simulation
        self.sample[index] = slot.sample
        self.times_seen.insert(index)
        self.population.insert(index)
        self.counters.received += 1

    def release(self, slot: Slot) -> None:
        """Free a slot that is being filled."""
        slot.open = False
        if slot.index is not None:
            self.population.give_back(slot.index)

    def evict(self, choose: Evictor) -> None:
        """Remove the seen sample that `choose` chooses."""
        self._remove(choose(self.population, self.rng))
        self.counters.evicted += 1

    def draw(self, select: Selector, number: int, *, remove: bool) -> Batch:
        """Draw a batch and count it.

        Args:
            select: rule that chooses the samples.
            number: number of samples in the batch.
            remove: whether the drawn samples are removed.
        """
        population, counters = self.population, self.counters
        slots = select(population, number, self.rng)
        batch = self.storage.gather(slots)
        counters.batches += 1
        counters.population_sum += len(population)
        counters.presentations += len(slots)
        self.times_seen.draw(slots)
        for slot in slots.tolist():
            counters.trained_unique += population.mark_seen(slot)
            if remove:
                self._remove(slot)
        return batch

    def identifiers(self) -> list[tuple[int, int]]:
        """Return (simulation, sample) of every sample held, unseen ones first."""
        held = self.population.held()
        return list(zip(self.simulation[held].tolist(), self.sample[held].tolist(), strict=True))

    def stats(
        self,
        *,
        capacity: int,
        put_blocked_seconds: float,
        stall_seconds: float,
        production_ended: bool,
        drained: bool,
        snapshot_seconds: float,
    ) -> BufferStats:
        """Return all figures of the buffer; arguments as in `BufferStats`."""
        population, counters = self.population, self.counters
        return BufferStats(
            population=len(population),
            unseen=population.unseen,
            capacity=capacity,
            received=counters.received,
            presentations=counters.presentations,
            trained_unique=counters.trained_unique,
            evicted=counters.evicted,
            spilled=counters.spilled,
            batches=counters.batches,
            mean_population=counters.population_sum / max(1, counters.batches),
            times_seen=self.times_seen.histogram(),
            mean_times_seen=counters.presentations / max(1, counters.received),
            put_blocked_seconds=put_blocked_seconds,
            stall_seconds=stall_seconds,
            production_ended=production_ended,
            drained=drained,
            snapshot_seconds=snapshot_seconds,
        )

    def snapshot(self, lock: threading.Lock, on_lock_held: Callable[[float], None]) -> BufferSnapshot:
        """Return a snapshot of the samples held now; arguments as in `BufferSnapshot`."""
        snapshot = BufferSnapshot(lock, self.storage, self.population.held(), on_lock_held)
        self._snapshots.add(snapshot)
        return snapshot

    def _remove(self, slot: int) -> None:
        for snapshot in self._snapshots:
            snapshot.preserve(slot)
        self.times_seen.remove(slot)
        self.population.remove(slot)
