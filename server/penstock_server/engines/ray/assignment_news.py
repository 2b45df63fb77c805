"""News of assignments from the coordinator's actor to the actors of the trainer ranks."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayActorError

from penstock_server.network import Assignment

_log = logging.getLogger("penstock.coordinator")


class AssignmentNews:
    """Tells the trainer ranks of assignments, in order and together, on a thread of its own.

    Args:
        ranks: handles of the trainer ranks' actors.
        on_known: called with the number of assignments that all ranks know by now.
        on_error: called when the ranks cannot be told, although they live.
    """

    def __init__(
        self, ranks: list[Any], on_known: Callable[[int], None], on_error: Callable[[BaseException], None]
    ) -> None:
        self._ranks, self._on_known, self._on_error = ranks, on_known, on_error
        self._queue: queue.SimpleQueue[Assignment | None] = queue.SimpleQueue()
        self._known = 0
        self._thread = threading.Thread(target=self._run, name="assignments", daemon=True)

    def start(self) -> None:
        """Begin to tell."""
        self._thread.start()

    def tell(self, assignment: Assignment) -> bool:
        """Let the ranks know of an attempt that was assigned or has ended; returns False: `on_known` follows."""
        self._queue.put(assignment)
        return False

    def close(self) -> None:
        """End the thread once everything has been told."""
        self._queue.put(None)

    def _run(self) -> None:
        try:
            while (news := self._take()) is not None:
                ray.get([rank.note_assignments.remote(news) for rank in self._ranks])
                self._known += len(news)
                self._on_known(self._known)
        except RayActorError as error:  # the engine notices the death of a rank by itself, and starts the server again
            _log.warning("a trainer rank cannot be told of assignments: %s", error)
        except Exception as error:
            self._on_error(error)

    def _take(self) -> list[Assignment] | None:
        """Wait for news and return all that there are; None at the end."""
        news = [self._queue.get()]
        while not self._queue.empty():
            news.append(self._queue.get())
        told = [assignment for assignment in news if assignment is not None]
        return told if len(told) == len(news) else None
