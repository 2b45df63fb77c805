"""Holds producers back where training cannot keep up with the presentations asked for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limiter:
    """A put is held while

        ratio * (received + 1 - needed) > presentations + allowed

    received: samples put so far. presentations: samples drawn so far, repeats counted. ratio: presentations wanted for each
    sample received, 0 for no limit. needed: samples that must be there before a batch may be drawn (watermark included);
    only samples beyond them count. allowed: how far training may lag, in presentations.

    and while a batch could be drawn. The second condition is what keeps it from deadlocking with the watermark: whenever it
    holds a put, training can go on, and each batch raises the right side. (While production runs the first one implies it,
    for `check_sizes` refuses a ratio above 1 where draws remove; after a restart in the middle of a drain it does not.)
    The buffer lifts the limit when production has ended.
    """

    ratio: float
    needed: int
    allowed: int

    def holds(self, received: int, presentations: int) -> bool:
        """Whether the next put is too early; its user asks only while a batch could be drawn."""
        return self.ratio * (received + 1 - self.needed) > presentations + self.allowed
