"""For how long production will still run."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class Pace:
    """How fast simulations have ended since this run of the server handed out the first one.

    Attributes:
        begun: when it did, seconds on the coordinator's clock; None before.
        ended_before: number of simulations that an earlier run had finished or failed for good.
    """

    begun: float | None = None
    ended_before: int = 0

    def begin(self, now: float, ended: int) -> None:
        """Note that a simulation is handed out; the first one starts the clock."""
        if self.begun is None:
            self.begun, self.ended_before = now, ended

    def remaining_seconds(self, now: float, ended: int, wanted: int) -> float:
        """Return the estimated time to the end of production, if simulations go on to end at their mean rate so far.

        Args:
            now: seconds on the coordinator's clock.
            ended: number of simulations that have finished or failed for good.
            wanted: number of simulations that wait or run.

        Returns:
            Seconds; 0 when none is wanted, NaN before the first one has ended.
        """
        if not wanted:
            return 0.0
        here = ended - self.ended_before
        if self.begun is None or here <= 0:
            return math.nan
        return wanted * (now - self.begun) / here
