"""Numbers kept for each slot, which can be copied as they are at one moment while they go on changing."""

from __future__ import annotations

import numpy as np

from penstock_server.buffer.storage import Indices


class Numbers:
    """An array with one number for each slot, or for each position in an order of the slots.

    Whoever changes numbers calls `changing` before, so that a journal can note what they were. Where no journal is
    kept, this costs the look at an empty list.

    Args:
        slots: length of the array.
        fill: value of all numbers at first.

    Attributes:
        values: (slots,) int64.
        items: the same memory; reading and writing single numbers takes a third of the time that it takes in an array.
        journals: journals that are being kept.
    """

    def __init__(self, slots: int, fill: int = 0) -> None:
        self.values: Indices = np.full(slots, fill, dtype=np.int64)
        self.items = memoryview(self.values)  # type: ignore[arg-type]
        self.journals: list[Journal] = []

    def fetch(self, at: list[int]) -> None:
        """Read numbers, so that they are in the processor's cache for the loop that follows.

        One array operation waits for all of them at once; the loop would wait for each.

        Args:
            at: indices of the numbers.
        """
        self.values.take(at)

    def changing(self, at: list[int] | range | Indices) -> None:
        """Note numbers that may be about to change; to be called only while there are journals.

        Args:
            at: indices of the numbers.
        """
        index = np.asarray(at, dtype=np.int64)
        for journal in self.journals:
            journal.before.append((index, self.values[index]))


class Journal:
    """What numbers were before they changed, from the moment on at which the journal is made.

    Numbers are copied without the buffer's lock while the journal is kept: a number that changes before or while it is
    copied is in the journal, whatever the copy has. The lock is held only to make and to end the journal.

    Args:
        numbers: the numbers; the caller holds the lock.

    Attributes:
        before: indices and values, each noted just before a change, in order.
    """

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers
        self.before: list[tuple[Indices, Indices]] = []
        numbers.journals.append(self)

    def copy(self, number: int) -> Indices:
        """Copy the first `number` numbers; without the lock, before `end`."""
        return self._numbers.values[:number].copy()

    def end(self) -> None:
        """Stop noting changes; the caller holds the lock."""
        self._numbers.journals.remove(self)

    def restore(self, copy: Indices) -> None:
        """Give a copy the values of the moment at which the journal was made; without the lock, after `end`.

        Args:
            copy: what `copy` returned.
        """
        # Backwards: of several notes of a number, the first has its value at that moment.
        for index, values in reversed(self.before):
            inside = index < len(copy)
            copy[index[inside]] = values[inside]
