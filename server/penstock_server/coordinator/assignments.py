"""What the trainer ranks are told of attempts: which were assigned, to which worker's key, and which are over."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from penstock_server.network import Assignment

LATE_SECONDS = 10.0  # after a failure is reported, pieces that were sent before it may still arrive for so long


class Assignments:
    """Numbers the news of assignments, and knows how many of them all trainer ranks know.

    A client is answered ACCEPT only when the ranks know of its attempt, so that its BEGIN finds it there.

    Args:
        tell: see `on_assignment` of `Coordinator`.
    """

    def __init__(self, tell: Callable[[Assignment], bool]) -> None:
        self._tell = tell
        self._told = self._known = 0
        self._numbers: dict[int, int] = {}  # of the news that an attempt began, by simulation
        self._now = 0.0
        self._failed: deque[tuple[float, Assignment]] = deque()  # with the time when the ranks are told

    def begin(self, simulation: int, attempt: int, worker: str) -> None:
        """Tell the ranks that an attempt was assigned."""
        self._send(Assignment(simulation, attempt, worker))
        self._numbers[simulation] = self._told

    def end(self, simulation: int, attempt: int, worker: str, *, finished: bool) -> None:
        """Tell the ranks that an attempt is over.

        The ranks have taken everything of a finished attempt. One that has failed says so on another connection than
        the one that brings its pieces, which may be slower. So the ranks are told later, and take the pieces until
        then.

        Args:
            simulation: its id.
            attempt: number of the attempt.
            worker: name of the worker's key.
            finished: False where it has failed or was handed back.
        """
        self._numbers.pop(simulation, None)
        over = Assignment(simulation, attempt, worker, over=True)
        if finished:
            self._send(over)
        else:
            self._failed.append((self._now + LATE_SECONDS, over))

    def advance(self, now: float) -> None:
        """Advance the clock; tell the ranks of attempts that failed long enough ago."""
        self._now = now
        while self._failed and self._failed[0][0] <= now:
            self._send(self._failed.popleft()[1])

    def set_known(self, number: int) -> None:
        """Note that all ranks know the first `number` news."""
        self._known = max(self._known, number)

    def known(self, simulation: int) -> bool:
        """Return whether all ranks know the current attempt of a simulation."""
        return self._numbers.get(simulation, 0) <= self._known

    def _send(self, assignment: Assignment) -> None:
        self._told += 1
        if self._tell(assignment):
            self._known = self._told
