"""When a launcher gives up: workers die one after the other, soon after their start, and no simulation finishes."""

from __future__ import annotations

from collections.abc import Callable

QUICK_DEATHS = 3  # a launcher gives up after at least this many quick deaths in a row


class QuickDeaths:
    """Counts the workers that died quickly in a row.

    A simulation that finishes meanwhile shows that workers can live, so the count starts again.

    Args:
        most: number of quick deaths in a row at which the launcher gives up.
        seconds: a worker that dies sooner than this after its start has died quickly.
        finished: returns how many simulations have finished so far.

    Attributes:
        number: quick deaths in a row so far.
        seconds: as given.
    """

    def __init__(self, most: int, seconds: float, finished: Callable[[], int]) -> None:
        self.number, self.seconds = 0, seconds
        self._most, self._finished, self._finished_before = most, finished, 0

    @property
    def too_many(self) -> bool:
        """Whether it is time to give up."""
        return self.number >= self._most

    def died(self, seconds: float) -> None:
        """Count a worker that died.

        Args:
            seconds: how long it ran.
        """
        finished = self._finished()
        if finished != self._finished_before:
            self.number, self._finished_before = 0, finished
        self.number = self.number + 1 if seconds < self.seconds else 0

    def lived(self) -> None:
        """Count a worker that ended well: the row is broken."""
        self.number = 0
