"""The state of each slot: unseen sample, seen sample, free, or filling (a sample is being written).

All slots stand in one array, ordered by state:

    [ unseen | seen | free | filling ]

so a state is a range of positions, a uniform draw is a random position, and a slot moves to the neighbouring state by
changing places with the slot at the border. Every move is O(1) and allocates nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


class Population:
    """The states of all slots, which are free at first. A slot is identified by its index in the storage.

    Args:
        slots: number of slots.
    """

    def __init__(self, slots: int) -> None:
        self._order: Indices = np.arange(slots, dtype=np.int64)
        self._place = list(range(slots))  # slot -> its position in _order; a list, as single items are read from it
        self._unseen_end = 0
        self._seen_end = 0
        self._free_end = slots
        self._arrival: OrderedDict[int, None] = OrderedDict()

    @classmethod
    def restored(cls, slots: int, unseen: int, arrival: Iterable[int]) -> Population:
        """Return a population that holds samples in the first slots: unseen ones, then seen ones, and none filling.

        Args:
            slots: number of slots.
            unseen: number of unseen samples.
            arrival: slots that hold samples, in order of arrival.

        Raises:
            ValueError: the numbers do not agree.
        """
        population = cls(slots)
        population._arrival = OrderedDict.fromkeys(arrival)
        held = len(population._arrival)
        if not 0 <= unseen <= held <= slots or sorted(population._arrival) != list(range(held)):
            raise ValueError(
                f"{unseen} unseen samples, order of arrival of {held} samples, {slots} slots: do not agree"
            )
        population._unseen_end, population._seen_end = unseen, held
        return population

    def __len__(self) -> int:
        """Samples held: unseen and seen."""
        return self._seen_end

    @property
    def unseen(self) -> int:
        """Number of unseen samples."""
        return self._unseen_end

    @property
    def seen(self) -> int:
        """Number of seen samples."""
        return self._seen_end - self._unseen_end

    @property
    def free(self) -> int:
        """Number of free slots."""
        return self._free_end - self._seen_end

    @property
    def filling(self) -> int:
        """Number of slots that are being filled."""
        return len(self._order) - self._free_end

    def is_unseen(self, slot: int) -> bool:
        """Return whether a slot holds an unseen sample."""
        return self._place[slot] < self._unseen_end

    def held(self) -> Indices:
        """Return the slots that hold a sample, unseen ones first; the order that random draws refer to. A copy."""
        return self._order[: self._seen_end].copy()

    def slots_at(self, positions: Indices) -> Indices:
        """Return the slots at these positions of `held`, 0 <= position < len(self)."""
        return self._order[positions]

    def oldest(self, number: int) -> Indices:
        """Return the `number` slots whose samples arrived first, in order of arrival."""
        return np.fromiter(islice(self._arrival, number), dtype=np.int64, count=number)

    def arrivals(self) -> Indices:
        """Return all slots that hold a sample, in order of arrival."""
        return self.oldest(len(self))

    def take_free(self) -> int:
        """Turn a free slot into a filling one.

        Returns:
            The slot.

        Raises:
            IndexError: no slot is free.
        """
        if self.free == 0:
            raise IndexError("no slot is free")
        self._free_end -= 1
        return int(self._order[self._free_end])

    def give_back(self, slot: int) -> None:
        """Turn a filling slot into a free one."""
        self._swap(slot, self._free_end)
        self._free_end += 1

    def insert(self, slot: int) -> None:
        """Turn a filling slot into one with an unseen sample, the newest sample."""
        self.give_back(slot)
        self._swap(slot, self._seen_end)
        self._seen_end += 1
        self._swap(slot, self._unseen_end)
        self._unseen_end += 1
        self._arrival[slot] = None

    def mark_seen(self, slot: int) -> bool:
        """Mark a held sample as seen; returns whether it was unseen before."""
        if not self.is_unseen(slot):
            return False
        self._unseen_end -= 1
        self._swap(slot, self._unseen_end)
        return True

    def remove(self, slot: int) -> None:
        """Free a slot that holds a seen sample.

        Raises:
            ValueError: the slot holds no seen sample; unseen samples are never removed.
        """
        if not self._unseen_end <= self._place[slot] < self._seen_end:
            raise ValueError(f"slot {slot} holds no sample that has been seen; only such a sample may be removed")
        self._seen_end -= 1
        self._swap(slot, self._seen_end)
        del self._arrival[slot]

    def _swap(self, slot: int, position: int) -> None:
        """Exchange `slot` with the slot at `position`."""
        here = self._place[slot]
        other = int(self._order[position])
        self._order[position], self._order[here] = slot, other
        self._place[slot], self._place[other] = position, here
