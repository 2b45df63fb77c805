"""The contents of a buffer: its samples, their identifiers, how often each was drawn, and the random generator."""

from __future__ import annotations

import threading
from collections.abc import Callable
from weakref import WeakSet

import numpy as np

from penstock_server.buffer.journal import Numbers
from penstock_server.buffer.policies import Evictor, Selector
from penstock_server.buffer.population import Population
from penstock_server.buffer.slots import Reserved, Slot, Slots
from penstock_server.buffer.snapshot import BufferSnapshot
from penstock_server.buffer.stats import BufferStats, Counters, TimesSeen
from penstock_server.buffer.storage import SampleStorage, own_memory


class Contents:
    """The samples of a buffer. Not thread-safe: the buffer holds its lock during every call but `slot` and `slots`.

    Args:
        storage: memory for the samples.
        seed: seed of all random draws and evictions.

    Attributes:
        storage: inputs and targets of all slots.
        population: state of each slot.
        times_seen: number of draws of each sample.
        simulation: id of the simulation of each slot's sample.
        sample: number of each slot's sample in its simulation.
        counters: running counts.
        rng: generator of all draws and evictions.
    """

    def __init__(self, storage: SampleStorage, *, seed: int) -> None:
        self.storage, slots = storage, storage.slots
        self.population = Population(slots)
        self.times_seen = TimesSeen(slots)
        self.simulation = Numbers(slots, fill=-1)
        self.sample = Numbers(slots, fill=-1)
        self.counters = Counters()
        self.rng = np.random.default_rng(seed)
        self._snapshots: WeakSet[BufferSnapshot] = WeakSet()  # those that may still be read
        self._gathered: list[list[int]] = []  # slots of each batch that is being gathered
        self._leaving: set[int] = set()  # of these, slots whose sample has left the buffer meanwhile

    @property
    def unused(self) -> bool:
        """Whether nothing has been put or drawn, and no slot is being filled."""
        return self.counters == Counters() and not self.population.taken

    @property
    def gathering(self) -> bool:
        """Whether a batch is being gathered."""
        return bool(self._gathered)

    def reserve(self, number: int, spare: int) -> list[int] | None:
        """Reserve free slots of the storage.

        Args:
            number: number of slots.
            spare: largest number of slots that producers may have; a commit below capacity then finds a free slot.

        Returns:
            The slots; None where too few are free, or producers do not write into the storage.
        """
        population = self.population
        if not self.storage.in_place:
            return None
        if population.taken - len(self._leaving) + number > spare or population.free < number:
            return None
        return population.take_free(number)

    def slot(self, indices: list[int] | None) -> Slot:
        """Return a slot of the storage; one with memory of its own where `reserve` returned None."""
        if indices is None:
            inputs, targets = own_memory(self.storage.spec, 1)
            return Slot(inputs[0], targets[0], None)
        (index,) = indices
        return Slot(self.storage.inputs[index], self.storage.targets[index], index)

    def slots(self, indices: list[int] | None, number: int) -> Slots:
        """Return a block of `number` slots; as `slot`."""
        if indices is None:
            return Slots(*own_memory(self.storage.spec, number), list(range(number)), stored=False)
        return Slots(self.storage.inputs, self.storage.targets, indices, stored=True)

    def insert(self, block: Reserved, number: int, choose: Evictor | None, capacity: int) -> None:
        """Turn the next `number` filled slots into the newest, unseen samples, one after the other.

        Args:
            block: slots that a producer has filled. Where they are not of the storage, no batch is being gathered.
            number: samples to insert; the caller has checked that there is room.
            choose: chooses the seen samples that leave for those put into a full buffer.
            capacity: largest number of samples held.
        """
        population, begin, end = self.population, block.settled, block.settled + number
        room = min(number, capacity - len(population))
        slots = block.indices[begin:end] if block.stored else population.take_free(room)
        population.insert(slots[:room])
        if number > room:
            assert choose is not None  # otherwise there is no room
            positions = choose(population, number - room, self.rng)
            evicted = population.replace(positions, slots[room:] if block.stored else None)
            self._leave(evicted)
            self.counters.evicted += len(evicted)
            if block.stored:
                self._free(evicted)
            else:
                slots = slots + evicted
        if not block.stored:
            for position, slot in enumerate(slots, begin):
                self.storage.inputs[slot], self.storage.targets[slot] = block.arrays(position)
            self.counters.spilled += number * self.storage.in_place
        self._identify(slots, block.simulation, block.numbers(begin, end))
        self.times_seen.insert(slots)
        self.counters.received += number
        block.settled = end

    def release(self, block: Reserved) -> None:
        """Free the slots that have been neither committed nor discarded."""
        if block.stored:
            self.population.give_back(block.indices[block.settled :])
        block.settled = len(block)

    def draw(self, select: Selector, number: int, *, remove: bool) -> list[int]:
        """Draw a batch and count it; its slots are not used for other samples before `end_gather`.

        Args:
            select: rule that chooses the samples.
            number: number of samples in the batch.
            remove: whether the drawn samples are removed.

        Returns:
            Slots of the samples, to be gathered.
        """
        population, counters = self.population, self.counters
        slots: list[int] = select(population, number, self.rng).tolist()
        counters.batches += 1
        counters.population_sum += len(population)
        counters.presentations += len(slots)
        self.times_seen.draw(slots)
        counters.trained_unique += population.mark_seen(slots)
        self._gathered.append(slots)
        if remove:
            population.remove(slots)
            self._leave(slots)
            self._leaving.update(slots)
        return slots

    def end_gather(self, slots: list[int]) -> None:
        """Note that a batch has been gathered.

        Args:
            slots: what `draw` returned.
        """
        self._gathered = [other for other in self._gathered if other is not slots]
        if self._leaving:
            leaving, self._leaving = self._leaving, set()
            self._free(list(leaving))

    def identifiers(self) -> list[tuple[int, int]]:
        """Return (simulation, sample) of every sample held, unseen ones first."""
        held = self.population.held()
        return list(zip(self.simulation.values[held].tolist(), self.sample.values[held].tolist(), strict=True))

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
        snapshot = BufferSnapshot(lock, self.storage, on_lock_held)
        self._snapshots.add(snapshot)
        return snapshot

    def _identify(self, slots: list[int], simulation: int, samples: list[int]) -> None:
        if self.simulation.journals:
            self.simulation.changing(slots)
            self.sample.changing(slots)
        simulations, numbers = self.simulation.items, self.sample.items
        for slot, sample in zip(slots, samples, strict=True):
            simulations[slot], numbers[slot] = simulation, sample

    def _leave(self, slots: list[int]) -> None:
        """Count samples among the removed; snapshots keep those that they still need."""
        for snapshot in self._snapshots:
            for slot in slots:
                snapshot.preserve(slot)
        self.times_seen.remove(slots)

    def _free(self, slots: list[int]) -> None:
        """Free slots whose samples have left, but not before they have been gathered.

        A slot that is being gathered is neither free nor held until `end_gather`, so nothing is written into it.
        """
        if self._gathered:
            gathered = set().union(*self._gathered)
            self._leaving.update(gathered.intersection(slots))
            slots = [slot for slot in slots if slot not in gathered]
        self.population.give_back(slots)
