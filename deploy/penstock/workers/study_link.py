"""What connects a launcher of workers with the running study."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class StudyLink:
    """What a launcher asks the running study, and how it ends the study.

    All three may be called from any thread.

    Attributes:
        wanted_workers: returns how many worker processes have something to do now.
        finished_simulations: returns how many simulations have finished so far.
        fail: ends the study as failed; called with the reason when no worker can be kept running.
    """

    wanted_workers: Callable[[], int]
    finished_simulations: Callable[[], int]
    fail: Callable[[str], None]


class Launcher(Protocol):
    """Keeps workers running from `start` to `stop`. A scheduler other than Slurm is added by implementing this."""

    def start(self) -> None:
        """Begin to start workers; return at once."""

    def kill(self, given_up: Collection[tuple[str, int, str]]) -> list[int]:
        """Kill the workers that the server has given up because they are frozen or stuck; others take their place.

        Args:
            given_up: host name, process id and name of the key of each client that the server has given up, on any machine.

        Returns:
            The process ids of the workers of this launcher that were killed by this call.
        """

    def stop(self) -> None:
        """End all workers and return when none is left. May be called more than once, and before `start`."""
