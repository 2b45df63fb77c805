"""What the trainer ranks are told of attempts: which were assigned, to which worker's key, and which are over."""

from __future__ import annotations

from collections.abc import Callable

from penstock_server.network import Assignment


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

    def begin(self, simulation: int, attempt: int, worker: str) -> None:
        """Tell the ranks that an attempt was assigned."""
        self._send(Assignment(simulation, attempt, worker))
        self._numbers[simulation] = self._told

    def end(self, simulation: int, attempt: int, worker: str) -> None:
        """Tell the ranks that an attempt is over."""
        self._numbers.pop(simulation, None)
        self._send(Assignment(simulation, attempt, worker, over=True))

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
