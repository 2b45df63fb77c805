"""Which slots hold what: unseen samples, seen samples, nothing, or a sample that is still being written.

All slots stand in one array, ordered by state:

    [ unseen | seen | free | filling ]

so a state is a range of positions, a uniform draw is a random position, and a slot moves to the neighbouring state by
changing places with the slot at the border. Every move is O(1) and nothing is allocated.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


class Population:
    """The states of `slots` slots, all free at first. Slots are named by their index in the storage."""

    def __init__(self, slots: int) -> None:
        self._order: Indices = np.arange(slots, dtype=np.int64)
        self._place = list(range(slots))  # slot -> its position in _order; a list, as single items are read from it
        self._unseen_end = 0
        self._seen_end = 0
        self._free_end = slots
        self._arrival: OrderedDict[int, None] = OrderedDict()

    @classmethod
    def of(cls, slots: int, unseen: int, arrival: Iterable[int]) -> Population:
        """A population that holds samples in the first slots: `unseen` unseen ones, then seen ones, and nothing filling.

        arrival: these slots in order of arrival. Raises ValueError where the numbers do not agree.
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
        return self._unseen_end

    @property
    def seen(self) -> int:
        return self._seen_end - self._unseen_end

    @property
    def free(self) -> int:
        return self._free_end - self._seen_end

    @property
    def filling(self) -> int:
        return len(self._order) - self._free_end

    def is_unseen(self, slot: int) -> bool:
        return self._place[slot] < self._unseen_end

    def held(self) -> Indices:
        """Slots that hold a sample, unseen ones first; the order that random draws refer to. A copy."""
        return self._order[: self._seen_end].copy()

    def at(self, positions: Indices) -> Indices:
        """The slots at these positions among those held: 0 <= position < len(self), unseen first."""
        return self._order[positions]

    def oldest(self, number: int) -> Indices:
        """The `number` slots whose samples arrived first, in order of arrival."""
        return np.fromiter(islice(self._arrival, number), dtype=np.int64, count=number)

    def arrivals(self) -> Indices:
        """All slots that hold a sample, in order of arrival."""
        return self.oldest(len(self))

    def take_free(self) -> int:
        """Turn a free slot into a filling one. IndexError when there is none."""
        if self.free == 0:
            raise IndexError("no slot is free")
        self._free_end -= 1
        return int(self._order[self._free_end])

    def give_back(self, slot: int) -> None:
        """Turn a filling slot into a free one."""
        self._swap(slot, self._free_end)
        self._free_end += 1

    def insert(self, slot: int) -> None:
        """Turn a filling slot into one with an unseen sample, the newest."""
        self.give_back(slot)
        self._swap(slot, self._seen_end)
        self._seen_end += 1
        self._swap(slot, self._unseen_end)
        self._unseen_end += 1
        self._arrival[slot] = None

    def mark_seen(self, slot: int) -> bool:
        """Count a held sample among the seen. True when it was unseen until now."""
        if not self.is_unseen(slot):
            return False
        self._unseen_end -= 1
        self._swap(slot, self._unseen_end)
        return True

    def remove(self, slot: int) -> None:
        """Free a slot that holds a *seen* sample. Unseen ones cannot be removed: that is the buffer's promise."""
        if not self._unseen_end <= self._place[slot] < self._seen_end:
            raise ValueError(f"slot {slot} holds no sample that has been seen; only such a sample may be removed")
        self._seen_end -= 1
        self._swap(slot, self._seen_end)
        del self._arrival[slot]

    def _swap(self, slot: int, position: int) -> None:
        """Exchange `slot` with whatever stands at `position`."""
        here = self._place[slot]
        other = int(self._order[position])
        self._order[position], self._order[here] = slot, other
        self._place[slot], self._place[other] = position, here
