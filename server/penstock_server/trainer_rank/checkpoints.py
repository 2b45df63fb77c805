"""The checkpoints of one training loop: when the next is due, what they have cost, and which could not be written."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from penstock_server.checkpoint import write_checkpoint
from penstock_server.telemetry import EventLog, Metrics
from penstock_server.trainer_rank.status import CheckpointFigures
from penstock_server.training import RankGroup


class Checkpoints:
    """Writes them, all ranks of the group together; rank 0 counts and reports them.

    Args:
        directory: where they lie. first: number of the next one. every: seconds between two, kept: how many of the last ones stay.
    """

    def __init__(
        self,
        directory: Path,
        group: RankGroup,
        *,
        first: int,
        every: float,
        kept: int,
        events: EventLog,
        metrics: Metrics,
    ) -> None:
        self._directory, self._group = directory, group
        self._next, self._every, self._kept = first, every, kept
        self._events, self._metrics = events, metrics
        self._figures = CheckpointFigures()
        self._fault = ""
        self._due = time.monotonic() + every

    def wait_anew(self) -> None:
        """From now on as long as between two."""
        self._due = time.monotonic() + self._every

    def due(self) -> bool:
        return time.monotonic() >= self._due

    def write(self, parts: Callable[[], Mapping[str, Any]], batches: int, locked: Callable[[], float]) -> None:
        """Write one. One that the disk does not take is counted and given up: the one before stays, and the next is tried when it is due.

        parts: makes what this rank writes. batches: trained so far. locked: seconds for which checkpoints have kept samples waiting so far.
        """
        figures, begun, locked_before = self._figures, time.monotonic(), locked()
        fault = ""
        try:
            write_checkpoint(self._directory, self._next, parts(), keep=self._kept, group=self._group)
        except OSError as error:
            fault = error.strerror or str(error)
        seconds = time.monotonic() - begun
        if self._group.rank == 0:
            figures.seconds += seconds
            if fault:
                figures.failed += 1
                self._metrics.checkpoints_failed.inc()
                self._fault = fault
                self._events.write("checkpoint_failed", number=self._next, message=fault)
            else:
                figures.count += 1
                self._metrics.checkpoints.inc()
                self._events.write("checkpoint", number=self._next, batches=batches, seconds=round(seconds, 3))
        self._next += not fault
        blocked = locked() - locked_before
        figures.ingest_blocked_seconds += blocked
        self._metrics.ingest_blocked_seconds.inc(blocked)
        self.wait_anew()

    def figures(self) -> CheckpointFigures:
        """So far; a copy."""
        return replace(self._figures)

    def warnings(self) -> list[str]:
        """For the report."""
        figures = self._figures
        if not figures.failed:
            return []
        return [
            f"{figures.failed} checkpoints could not be written (the last time: {self._fault}); {figures.count} were"
        ]
