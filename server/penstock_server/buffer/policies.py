"""FIFO, FIRO and reservoir (SC 2023, section 3), each composed of a rule for draws and a rule for evictions.

| policy    | draw                             | after the draw | put into a full buffer         | a batch of n needs  |
|-----------|----------------------------------|----------------|--------------------------------|---------------------|
| fifo      | the n oldest                     | removed        | waits                          | n samples           |
| firo      | n uniformly, all different       | removed        | waits                          | watermark + n       |
| reservoir | n uniformly, with replacement    | kept, seen     | evicts a random seen sample, or waits | watermark + 1
|

The paper draws one sample at a time, each draw waiting until population > watermark; n such draws need watermark + n
samples where a draw removes (FIRO), and watermark + 1 where it does not (reservoir).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from penstock_server.buffer.population import Population

Indices = NDArray[np.int64]
PolicyName = Literal["fifo", "firo", "reservoir"]

Selector = Callable[[Population, int, np.random.Generator], Indices]
"""Chooses the slots of a batch of n samples; the caller has checked that there are enough samples."""

Evictor = Callable[[Population, int, np.random.Generator], list[int]]
"""Chooses the samples that leave for the next n that are put into a full buffer, as positions for `Population.replace`;
the caller has checked that there are as many seen samples."""


def oldest(population: Population, number: int, _rng: np.random.Generator) -> Indices:
    """Choose the samples that arrived first, in order."""
    return population.oldest(number)


def uniform_distinct(population: Population, number: int, rng: np.random.Generator) -> Indices:
    """Choose different samples uniformly (without replacement)."""
    return population.slots_at(rng.choice(len(population), number, replace=False))


def uniform_with_replacement(population: Population, number: int, rng: np.random.Generator) -> Indices:
    """Choose samples uniformly and independently: a sample may be in a batch twice."""
    return population.slots_at(rng.integers(0, len(population), number))


def random_seen(population: Population, number: int, rng: np.random.Generator) -> list[int]:
    """Choose, for each new sample, one of the samples that are seen by then, uniformly."""
    unseen, held = population.unseen, len(population)
    if number == 1:
        return [int(rng.integers(unseen, held))]
    # Each new sample is unseen and takes the place of a seen one. One call draws the numbers that single calls would.
    return rng.integers(np.arange(unseen, unseen + number), held).tolist()


@dataclass(frozen=True)
class Policy:
    """How a buffer draws and evicts.

    Attributes:
        name: name in the study file.
        select: rule for draws while production runs.
        drain: rule for draws after production has ended; these draws always remove.
        evict: rule for the sample that a put into a full buffer overwrites; None where such a put waits.
        keeps: whether a draw leaves the samples in place while production runs.
        watermarked: whether the watermark applies.
    """

    name: PolicyName
    select: Selector
    drain: Selector
    evict: Evictor | None
    keeps: bool
    watermarked: bool

    def needed(self, batch_size: int, watermark: int) -> int:
        """Return the number of samples that must be held before a batch may be drawn while production runs.

        Args:
            batch_size: samples of the batch.
            watermark: watermark of the buffer.
        """
        return (watermark if self.watermarked else 0) + (1 if self.keeps else batch_size)


POLICIES: dict[PolicyName, Policy] = {
    "fifo": Policy("fifo", select=oldest, drain=oldest, evict=None, keeps=False, watermarked=False),
    "firo": Policy("firo", select=uniform_distinct, drain=uniform_distinct, evict=None, keeps=False, watermarked=True),
    "reservoir": Policy(
        "reservoir",
        select=uniform_with_replacement,
        drain=uniform_distinct,
        evict=random_seen,
        keeps=True,
        watermarked=True,
    ),
}


def check_sizes(
    policy: PolicyName, capacity: int, watermark: int, batch_size: int, presentations_per_sample: float = 0.0
) -> None:
    """Check the sizes of a buffer.

    Args:
        policy: "fifo", "firo" or "reservoir".
        capacity: largest number of samples held.
        watermark: population above which training may draw.
        batch_size: samples of a batch.
        presentations_per_sample: ratio of the limiter; 0 for none.

    Raises:
        ValueError: a buffer of these sizes could never give a batch, or never reach the limiter's ratio.
    """
    if policy not in POLICIES:
        raise ValueError(f"policy = {policy!r}: expected one of {', '.join(POLICIES)}")
    for name, value, least in (("capacity", capacity, 1), ("watermark", watermark, 0), ("batch_size", batch_size, 1)):
        if value < least:
            raise ValueError(f"{name} = {value}: expected at least {least}")
    if presentations_per_sample < 0:
        raise ValueError(f"presentations_per_sample = {presentations_per_sample:g}: expected 0 (off) or more")
    chosen = POLICIES[policy]
    needed = chosen.needed(batch_size, watermark)
    if needed > capacity:
        held_back = f" above a watermark of {watermark}" if chosen.watermarked else ""
        raise ValueError(
            f"capacity = {capacity} samples: a {policy} buffer needs at least {needed} to draw a batch of {batch_size}"
            f"{held_back}; raise the capacity, or lower the watermark or the batch size"
        )
    if not chosen.keeps and presentations_per_sample > 1:
        raise ValueError(
            f"presentations_per_sample = {presentations_per_sample:g} with policy = {policy!r}, which presents each "
            'sample once: expected at most 1; use policy = "reservoir" to present samples more often'
        )
