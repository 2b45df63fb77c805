"""The checkpoints of one training loop: when the next is due, what they have cost, and which could not be written."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from penstock_server.checkpoint import write_checkpoint
from penstock_server.trainer_rank.context import RankContext
from penstock_server.trainer_rank.status import CheckpointFigures

CHECKPOINTS = "checkpoints"
"""Name of their folder in a run directory."""


class Checkpoints:
    """Writes checkpoints, all ranks of the group together; rank 0 counts and reports them.

    The first is due [training] checkpoint_every after the object is made.

    Args:
        context: the rank.
    """

    def __init__(self, context: RankContext) -> None:
        training, restore = context.study.training, context.restore
        self._directory, self._group = context.directory / CHECKPOINTS, context.group
        self._events, self._metrics = context.events, context.metrics
        self._next = 0 if restore is None else restore.number + 1
        self._every, self._kept = training.checkpoint_every, training.checkpoints_kept
        self._figures = CheckpointFigures()
        self._last_failure = ""
        self._left_over, self._last_left_over = 0, ""
        self._due = time.monotonic() + self._every

    def due(self) -> bool:
        """Return whether the next checkpoint is due."""
        return time.monotonic() >= self._due

    def write(
        self, parts: Callable[[], Mapping[str, Any]], batches: int, ingest_blocked_seconds: Callable[[], float]
    ) -> None:
        """Write a checkpoint, all ranks at the same step.

        A checkpoint that the disk does not take is counted and given up: the one before stays, and the next is tried
        when it is due.

        Args:
            parts: makes the parts that this rank writes.
            batches: training steps so far.
            ingest_blocked_seconds: returns for how many seconds checkpoints have kept arriving samples waiting so far.

        Raises:
            PeersLost: when another rank has gone.
        """
        figures, begun, blocked_before = self._figures, time.monotonic(), ingest_blocked_seconds()
        failure, number = "", self._next
        try:
            path = write_checkpoint(
                self._directory,
                self._next,
                parts(),
                keep=self._kept,
                group=self._group,
                on_left_over=self._note_left_over,
            )
            number = int(path.name)
        except OSError as error:
            failure = error.strerror or str(error)
        seconds = time.monotonic() - begun
        if self._group.rank == 0:
            figures.seconds += seconds
            if failure:
                figures.failed += 1
                self._metrics.checkpoints_failed.inc()
                self._last_failure = failure
                self._events.write("checkpoint_failed", number=self._next, message=failure)
            else:
                figures.count += 1
                self._metrics.checkpoints.inc()
                self._metrics.checkpoint_time.set(time.time())
                self._events.write("checkpoint", number=number, batches=batches, seconds=round(seconds, 3))
        self._next = number + (not failure)
        blocked = ingest_blocked_seconds() - blocked_before
        figures.ingest_blocked_seconds += blocked
        self._metrics.ingest_blocked_seconds.inc(blocked)
        self._due = time.monotonic() + self._every

    def figures(self) -> CheckpointFigures:
        """Return a copy of the figures so far."""
        return replace(self._figures)

    def warnings(self) -> list[str]:
        """Return warnings for the report about checkpoints that could not be written."""
        figures, out = self._figures, []
        if figures.failed:
            out.append(
                f"{figures.failed} checkpoints could not be written (the last time: {self._last_failure}); "
                f"{figures.count} were"
            )
        if self._left_over:
            out.append(
                f"old checkpoints could not be removed {self._left_over} times (the last time: {self._last_left_over}); "
                "they take room on the disk: remove them once the study has ended"
            )
        return out

    def _note_left_over(self, text: str) -> None:
        self._left_over, self._last_left_over = self._left_over + 1, text
        self._events.write("checkpoint_left_over", message=text)
