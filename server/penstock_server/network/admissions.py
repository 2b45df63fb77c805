"""Which attempts at simulations the coordinator has assigned, and to the key of which worker.

The coordinator tells its trainer ranks of every assignment and of its end. A rank takes nothing that was not assigned.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from penstock_client.errors import Refused
from penstock_client.reasons import Reason
from penstock_client.wire import Header


@dataclass(frozen=True, slots=True)
class Assignment:
    """One attempt at one simulation, assigned or over.

    Attributes:
        simulation: its id.
        attempt: number of the attempt.
        worker: name of the worker's key to which it was assigned.
        over: True once it has ended at the coordinator.
    """

    simulation: int
    attempt: int
    worker: str
    over: bool = False


class Admissions:
    """The latest assignment of each simulation, as a trainer rank knows them. Any thread may call anything."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: dict[int, Assignment] = {}

    def note(self, assignment: Assignment) -> None:
        """Note that an attempt was assigned or has ended; news of an earlier attempt than the latest changes nothing."""
        with self._lock:
            before = self._latest.get(assignment.simulation)
            if before is None or assignment.attempt >= before.attempt:
                self._latest[assignment.simulation] = assignment

    def is_over(self, header: Header, worker: str) -> bool:
        """Return whether a message belongs to an attempt of its own sender's that has ended."""
        assigned = self._latest.get(header.simulation)
        return assigned == Assignment(header.simulation, header.attempt, worker, over=True)

    def check(self, header: Header, worker: str) -> None:
        """Check that the sender of a message may stream to the attempt that its header names.

        Args:
            header: of the message.
            worker: name of the sender's key.

        Raises:
            Refused: the attempt was not assigned to this key, or has ended.
        """
        assigned = self._latest.get(header.simulation)
        if assigned is not None and (
            header.attempt < assigned.attempt or (header.attempt == assigned.attempt and assigned.over)
        ):
            state = "has ended" if assigned.over else "is under way"
            raise Refused(
                Reason.STALE_ATTEMPT,
                f"attempt {header.attempt} of simulation {header.simulation}: attempt {assigned.attempt} {state}",
            )
        if assigned is None or header.attempt != assigned.attempt or worker != assigned.worker:
            raise Refused(
                Reason.UNKNOWN_SIMULATION,
                f"attempt {header.attempt} of simulation {header.simulation} is not assigned to this worker's key: ask "
                "the coordinator with NEXT first",
            )
