"""Figures of a buffer, and the counters that they are made from."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock_server.buffer.journal import Numbers


@dataclass(frozen=True)
class BufferStats:
    """A buffer at one moment; counts go back to the start of the study, across checkpoints.

    Attributes:
        population: samples held, seen and unseen.
        unseen: of these, samples that no batch has held yet.
        capacity: samples that the buffer may hold.
        received: samples committed.
        presentations: samples drawn, each draw counted.
        trained_unique: different samples drawn at least once.
        evicted: seen samples overwritten by new ones (reservoir).
        spilled: samples that had no spare slot while they were filled and were copied in on commit; raise `spare` if
            many.
        batches: batches drawn.
        mean_population: population just before a draw, averaged over all batches drawn; 0.0 before the first.
        times_seen: times seen -> number of samples, of all samples received, whether still held or not.
        mean_times_seen: presentations / received; 0.0 before the first.
        put_blocked_seconds: time that producers have spent in `commit`, waiting; of several at once, each counts.
        stall_seconds: time that training has spent in `get`, waiting.
        production_ended: whether `end_production` has been called.
        drained: production has ended and no sample is left.
        snapshot_seconds: time that checkpoints have held the buffer's lock since the buffer was made: an upper bound of
            the time that puts waited for checkpoints.
    """

    population: int
    unseen: int
    capacity: int
    received: int
    presentations: int
    trained_unique: int
    evicted: int
    spilled: int
    batches: int
    mean_population: float
    times_seen: dict[int, int]
    mean_times_seen: float
    put_blocked_seconds: float
    stall_seconds: float
    production_ended: bool
    drained: bool
    snapshot_seconds: float = 0.0


@dataclass
class Counters:
    """Running counts of a buffer, kept in its checkpoint.

    Attributes:
        received: samples committed.
        presentations: samples drawn, each draw counted.
        trained_unique: different samples drawn at least once.
        evicted: seen samples overwritten by new ones.
        spilled: samples without a spare slot, copied in on commit.
        batches: batches drawn.
        population_sum: sum over all batches of the population just before the draw.
    """

    received: int = 0
    presentations: int = 0
    trained_unique: int = 0
    evicted: int = 0
    spilled: int = 0
    batches: int = 0
    population_sum: int = 0


class WaitClock:
    """Sum of the time that threads spend waiting, including those that wait now. The caller holds a lock.

    Args:
        seconds: time waited before, from a checkpoint.

    Attributes:
        waiting: number of threads that wait now.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.waiting = 0
        self._total = seconds
        self._since = 0.0

    @property
    def seconds(self) -> float:
        """Time waited so far, in seconds; of several threads at once, each counts."""
        return self._total + self.waiting * (time.monotonic() - self._since)

    def __enter__(self) -> None:
        self._settle(+1)

    def __exit__(self, *_: object) -> None:
        self._settle(-1)

    def _settle(self, change: int) -> None:
        now = time.monotonic()
        self._total += self.waiting * (now - self._since)
        self._since = now
        self.waiting += change


class TimesSeen:
    """Number of draws of each sample held, and histograms of all samples and of those that were removed.

    The histogram is kept up to date, so that reading it costs the same for any number of samples.

    Args:
        slots: number of slots.

    Attributes:
        held: number of draws of each slot's sample; read only.
        removed: number of removed samples by number of draws.
    """

    def __init__(self, slots: int) -> None:
        self.held = Numbers(slots)
        self.removed: NDArray[np.int64] = np.zeros(8, dtype=np.int64)
        self._all = [0]  # number of samples, held or removed, by number of draws

    def insert(self, slots: list[int]) -> None:
        """Count new samples, not drawn yet."""
        if self.held.journals:
            self.held.changing(slots)
        held = self.held.items
        for slot in slots:
            held[slot] = 0
        self._all[0] += len(slots)

    def draw(self, slots: list[int]) -> None:
        """Count one draw for each of `slots`, which may name a slot more than once."""
        if self.held.journals:
            self.held.changing(slots)
        self.held.fetch(slots)
        held, counts = self.held.items, self._all
        for slot in slots:
            times = held[slot]
            held[slot] = times + 1
            counts[times] -= 1
            if times + 1 == len(counts):
                counts.append(0)
            counts[times + 1] += 1

    def remove(self, slots: list[int]) -> None:
        """Count the samples of slots among the removed."""
        held = self.held.items
        for slot in slots:
            times = held[slot]
            if times >= len(self.removed):
                longer = np.zeros(2 * times, dtype=np.int64)
                longer[: len(self.removed)] = self.removed
                self.removed = longer
            self.removed[times] += 1

    def load(self, held: NDArray[np.int64], removed: NDArray[np.int64]) -> None:
        """Continue with the counts of a checkpoint.

        Args:
            held: number of draws of the samples in the first slots, (n,).
            removed: number of removed samples by number of draws.
        """
        self.held.values[: len(held)] = held
        self.removed = np.array(removed, dtype=np.int64)
        both = np.bincount(self.held.values[: len(held)], minlength=len(self.removed))
        both[: len(self.removed)] += self.removed
        self._all = both.tolist()

    def histogram(self) -> dict[int, int]:
        """Return times seen -> number of samples, held or removed, in rising order."""
        return {times: number for times, number in enumerate(self._all) if number}
