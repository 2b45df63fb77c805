"""Who may go on: how many samples may be put now, and whether a batch may be drawn."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from penstock_server.buffer.limiter import Limiter
from penstock_server.buffer.policies import Policy
from penstock_server.buffer.population import Population
from penstock_server.buffer.stats import Counters


@dataclass
class Flow:
    """The rules for putting and drawing. Not thread-safe: the buffer holds its lock during every call.

    Attributes:
        policy: rules for draws and evictions.
        capacity: largest number of samples held.
        watermark: population above which training may draw.
        batch_size: largest number of samples in a batch.
        presentations_per_sample: ratio of the limiter.
        ended: whether production has ended.
        draining: whether draws remove in any case.
        closed: whether the buffer has been closed.
        limiter: limit on how far training may lag behind.
    """

    policy: Policy
    capacity: int
    watermark: int
    batch_size: int
    presentations_per_sample: float
    ended: bool = False
    draining: bool = False
    closed: bool = False
    limiter: Limiter = field(init=False)

    def __post_init__(self) -> None:
        needed = self.policy.needed(self.batch_size, self.watermark)
        self.limiter = Limiter(self.presentations_per_sample, needed=needed, allowed=self.batch_size)

    def admitted(self, number: int, population: Population, counters: Counters) -> int:
        """Return how many of the next `number` samples may be put before a batch is drawn.

        Args:
            number: samples that a producer has.
            population: states of the slots.
            counters: counts of the buffer.
        """
        held = len(population)
        room = self.capacity - held + (population.seen if self.policy.evict is not None else 0)
        number = min(number, room)
        if self.ended or self.closed or not self.limiter.ratio:
            return number
        # The limiter holds a put only while a batch could be drawn, and once it holds one, it holds the next.
        first = max(0, self.policy.needed(self.batch_size, self.watermark) - held)
        if first >= number:
            return number
        received, presentations = counters.received, counters.presentations
        return bisect_left(
            range(number), True, lo=first, key=lambda after: self.limiter.holds(received + after, presentations)
        )

    def ready(self, batch_size: int, held: int) -> bool:
        """Return whether a batch may be drawn.

        Args:
            batch_size: samples of the batch.
            held: samples in the buffer.
        """
        if self.closed:
            return False
        return held > 0 if self.ended else held >= self.policy.needed(batch_size, self.watermark)

    def removes(self) -> bool:
        """Return whether a draw removes its samples."""
        return self.draining or not self.policy.keeps

    def check_batch(self, batch_size: int) -> None:
        """Raise ValueError where the buffer was not made for batches of this size."""
        if not 1 <= batch_size <= self.batch_size:
            raise ValueError(
                f"a batch of {batch_size} samples was asked of a buffer made for 1 to {self.batch_size}: "
                "make it with that batch_size"
            )
