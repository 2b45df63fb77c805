"""The state of each slot: unseen sample, seen sample, free, or taken (a sample is being written or read).

Slots stand in one array:

    [ unseen | seen | - | free ]

so a state is a range of positions, a uniform draw is a random position, and a slot moves to the neighbouring state by
changing places with the slot at the border. Taken slots stand nowhere; there are as many as the gap is long, so the two
sides never meet. Every move is O(1). Blocks of slots are moved in a loop over plain integers: for batches of some tens
of samples this is as fast as array operations, whose result would depend on how samples are grouped into blocks.
"""

from __future__ import annotations

import numpy as np

from penstock_server.buffer.journal import Numbers
from penstock_server.buffer.storage import Indices


class Population:
    """The states of all slots, which are free at first. A slot is identified by its index in the storage.

    Args:
        slots: number of slots.

    Attributes:
        order: slot at each position, (slots,); see above.
        arrived: number of each slot's sample in the order of arrival, (slots,); read only.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self.order = Numbers(slots)
        self.order.values[:] = np.arange(slots)
        self.arrived = Numbers(slots)
        self._place = Numbers(slots)  # of each slot that holds a sample: its position in `order`
        self._queue = Numbers(slots)  # arrival number modulo slots -> slot
        self._unseen = 0
        self._held = 0
        self._free_begin = 0
        self._arrivals = 0
        self._in_order = True  # whether samples have left in the order in which they arrived

    @classmethod
    def restored(cls, slots: int, unseen: int, arrival: Indices) -> Population:
        """Return a population that holds samples in the first slots: unseen ones, then seen ones, and none taken.

        Args:
            slots: number of slots.
            unseen: number of unseen samples.
            arrival: slots that hold samples, in order of arrival.

        Raises:
            ValueError: the numbers do not agree.
        """
        population = cls(slots)
        held = len(arrival)
        if not 0 <= unseen <= held <= slots or not np.array_equal(np.sort(arrival), np.arange(held)):
            raise ValueError(
                f"{unseen} unseen samples, order of arrival of {held} samples, {slots} slots: do not agree"
            )
        population._unseen, population._held, population._free_begin = unseen, held, held
        population._place.values[:held] = np.arange(held)
        population.arrived.values[arrival] = np.arange(held)
        population._queue.values[:held] = arrival
        population._arrivals = held
        return population

    def __len__(self) -> int:
        """Samples held: unseen and seen."""
        return self._held

    @property
    def unseen(self) -> int:
        """Number of unseen samples."""
        return self._unseen

    @property
    def seen(self) -> int:
        """Number of seen samples."""
        return self._held - self._unseen

    @property
    def free(self) -> int:
        """Number of free slots."""
        return self._slots - self._free_begin

    @property
    def taken(self) -> int:
        """Number of slots that are being written or read."""
        return self._free_begin - self._held

    def is_unseen(self, slot: int) -> bool:
        """Return whether a slot that holds a sample holds an unseen one."""
        return self._place.items[slot] < self._unseen

    def held(self) -> Indices:
        """Return the slots that hold a sample, unseen ones first; the order that random draws refer to. A copy."""
        return self.order.values[: self._held].copy()

    def slots_at(self, positions: Indices) -> Indices:
        """Return the slots at these positions of `held`, 0 <= position < len(self)."""
        return self.order.values[positions]

    def oldest(self, number: int) -> Indices:
        """Return the `number` slots whose samples arrived first, in order of arrival.

        O(number) where samples have left in the order in which they arrived, as with FIFO.
        """
        if self._in_order:
            first = self._arrivals - self._held
            return self._queue.values[np.arange(first, first + number) % self._slots]
        held = self.held()
        return held[np.argsort(self.arrived.values[held])[:number]]

    def take_free(self, number: int) -> list[int]:
        """Turn free slots into taken ones.

        Args:
            number: number of slots.

        Returns:
            The slots.

        Raises:
            IndexError: fewer are free.
        """
        if number > self.free:
            raise IndexError(f"{self.free} slots are free, {number} were asked for")
        begin = self._free_begin
        self._free_begin += number
        return self.order.items[begin : self._free_begin].tolist()

    def give_back(self, slots: list[int]) -> None:
        """Turn taken slots into free ones."""
        order, begin = self.order, self._free_begin
        if order.journals:
            order.changing(range(begin - len(slots), begin))
        for slot in slots:
            begin -= 1
            order.items[begin] = slot
        self._free_begin = begin

    def insert(self, slots: list[int]) -> None:
        """Turn taken slots, one after the other, into slots with an unseen sample, the newest sample."""
        if self.order.journals:
            self.order.changing(range(self._unseen, self._unseen + len(slots)))
            self.order.changing(range(self._held, self._held + len(slots)))
        order, place = self.order.items, self._place.items
        unseen, held = self._unseen, self._held
        for slot in slots:
            if unseen < held:
                first_seen = order[unseen]
                order[held], place[first_seen] = first_seen, held
            order[unseen], place[slot] = slot, unseen
            unseen += 1
            held += 1
        self._unseen, self._held = unseen, held
        self._arrive(slots)

    def replace(self, positions: list[int], slots: list[int] | None) -> list[int]:
        """Remove seen samples and insert new, unseen ones: remove one, insert one, and so on.

        Args:
            positions: position in `held` of each sample to remove, at the time when it is removed.
            slots: taken slots of the new samples; None where each takes the slot of the sample that it replaces.

        Returns:
            Slots of the samples that were removed; taken, unless they hold the new samples.
        """
        if self.order.journals:
            self.order.changing(positions)
            self.order.changing(range(self._unseen, self._unseen + len(positions)))
            self.order.changing([self._held - 1])
        order, place = self.order.items, self._place.items
        unseen, last = self._unseen, self._held - 1
        removed = []
        for number, position in enumerate(positions):
            gone = order[position]
            removed.append(gone)
            slot = gone if slots is None else slots[number]
            moved = order[last]
            order[position], place[moved] = moved, position
            moved = order[unseen]
            order[last], place[moved] = moved, last
            order[unseen], place[slot] = slot, unseen
            unseen += 1
        self._unseen = unseen
        self._in_order = self._in_order and not removed
        self._arrive(removed if slots is None else slots)
        return removed

    def mark_seen(self, slots: list[int]) -> int:
        """Mark held samples as seen; a slot may be given more than once.

        Returns:
            Number of samples that were unseen before.
        """
        place, before = self._place.items, self._unseen
        if not before:
            return 0
        if self.order.journals:
            self.order.changing(self._place.values[slots])
            self.order.changing(range(max(0, before - len(slots)), before))
        self._place.fetch(slots)
        order, unseen = self.order.items, before
        for slot in slots:
            position = place[slot]
            if position < unseen:
                unseen -= 1
                other = order[unseen]
                order[position], place[other] = other, position
                order[unseen], place[slot] = slot, unseen
        self._unseen = unseen
        return before - unseen

    def remove(self, slots: list[int]) -> None:
        """Turn slots that hold seen samples into taken ones.

        Raises:
            ValueError: a slot holds no seen sample; unseen samples are never removed.
        """
        order, place = self.order.items, self._place.items
        for slot in slots:
            position = place[slot]
            if not self._unseen <= position < self._held or order[position] != slot:
                raise ValueError(f"slot {slot} holds no sample that has been seen; only such a sample may be removed")
        if self.order.journals:
            self.order.changing(self._place.values[slots])
            self.order.changing(range(self._held - len(slots), self._held))
        held = self._held
        for slot in slots:
            held -= 1
            position, other = place[slot], order[held]
            order[position], place[other] = other, position
        self._held = held
        if self._in_order:
            first = self._arrivals - held
            self._in_order = max(map(self.arrived.items.__getitem__, slots), default=-1) < first

    def _arrive(self, slots: list[int]) -> None:
        if self.arrived.journals:
            self.arrived.changing(slots)
        arrived, queue, size = self.arrived.items, self._queue.items, self._slots
        for number, slot in enumerate(slots, self._arrivals):
            arrived[slot] = number
            queue[number % size] = slot
        self._arrivals += len(slots)
