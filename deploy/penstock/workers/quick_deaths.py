"""When a launcher gives up: workers die one after the other, soon after their start, and nothing comes of it."""

from __future__ import annotations

from collections.abc import Callable

QUICK_SECONDS = 20.0  # a worker that dies sooner than this after its start has died quickly
QUICK_DEATHS = 3  # so many in a row, at least, and a launcher gives up


class QuickDeaths:
    """Counts workers that have died quickly in a row. Where simulations finish meanwhile, workers can live, whatever is done to them.

    Args:
        most: so many, and it is time to give up. finished: how many simulations have come to their end.
    """

    def __init__(self, most: int, finished: Callable[[], int]) -> None:
        self.number = 0
        self._most, self._finished, self._finished_before = most, finished, 0

    @property
    def too_many(self) -> bool:
        return self.number >= self._most

    def died(self, seconds: float) -> None:
        """A worker has died so many seconds after its start."""
        finished = self._finished()
        if finished != self._finished_before:
            self.number, self._finished_before = 0, finished
        self.number = self.number + 1 if seconds < QUICK_SECONDS else 0

    def lived(self) -> None:
        """A worker has ended well."""
        self.number = 0
