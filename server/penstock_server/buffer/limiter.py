"""The limiter: producers wait where training cannot keep up with the presentations asked for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limiter:
    """Limit on how far training may lag behind the presentations asked for.

    A put waits while a batch could be drawn and

        ratio * (received + 1 - needed) > presentations + allowed

    The first condition prevents a deadlock with the watermark: whenever a put waits, training can go on, and each batch
    raises the right side. While production runs, the inequality implies it, since `check_sizes` refuses a ratio above 1
    for policies that remove the samples they draw; after a restart in the middle of a drain it does not. The buffer
    lifts the limit when production has ended.

    Attributes:
        ratio: presentations wanted for each sample received; 0 for no limit.
        needed: samples needed before a batch may be drawn, watermark included; only samples beyond them count.
        allowed: lag of training that is allowed, in presentations.
    """

    ratio: float
    needed: int
    allowed: int

    def holds(self, received: int, presentations: int) -> bool:
        """Return whether the next put must wait; to be asked only while a batch could be drawn.

        Args:
            received: samples put so far.
            presentations: samples drawn so far, repeats counted.
        """
        return self.ratio * (received + 1 - self.needed) > presentations + self.allowed
