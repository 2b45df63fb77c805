"""What a trainer rank has from its start, before the fields of its study are known."""

from __future__ import annotations

from pathlib import Path

from penstock_server.checkpoint import Checkpoint
from penstock_server.study import Study, TrainingSection, expect_same_study
from penstock_server.telemetry import EventLog, Metrics
from penstock_server.training import RankGroup


class RankContext:
    """The study, the logs and the outcome of one trainer rank.

    The outcome (`over`, `error`, `lost`) may be set from any thread; the first reason and the first error given count.

    Args:
        study: the whole study.
        directory: the study's run directory.
        rank: number of this trainer rank, from 0.
        restore: checkpoint to continue from; None for a new study.

    Raises:
        StudyChanged: when the checkpoint belongs to another study.

    Attributes:
        trained_with: optimizer and scheduler at the time of the checkpoint; None without one, or where it does not say.
        group: all trainer ranks of the study.
        metrics: counters and gauges of this process.
        events: events.jsonl of the run directory.
        warnings: for the report.
        over: why training ends or has ended; "" while it goes on.
        error: what this rank failed of; "" where it did not.
        lost: how this rank has lost the other ranks; "" where it has not.
    """

    def __init__(self, study: Study, directory: Path, *, rank: int = 0, restore: Checkpoint | None = None) -> None:
        self.study, self.directory, self.rank, self.restore = study, directory, rank, restore
        before = None if restore is None else restore.parts.get("study")
        self.trained_with: TrainingSection | None = None
        if before is not None:
            expect_same_study(before, study)
            made_with = {key: before["training"][key] for key in ("optimizer", "scheduler")}
            self.trained_with = TrainingSection.model_validate(made_with)
        self.group = RankGroup(rank, study.training.ranks)
        self.metrics = Metrics(f"rank-{rank}", study.study.name)
        self.events = EventLog(directory / "events.jsonl")
        self.warnings: list[str] = list(() if restore is None else restore.skipped)
        self.over = ""
        self.error = ""
        self.lost = ""

    def finish(self, reason: str) -> None:
        """End training after the current step."""
        self.over = self.over or reason

    def lose_peers(self, reason: str) -> None:
        """End training because another rank has gone; the engine restarts the server from the last checkpoint."""
        self.lost = self.lost or reason
        self.finish(reason)

    def fail(self, error: str) -> None:
        """End training after the current step because of an error that this rank cannot recover from."""
        self.error = self.error or error
        self.finish("failed")
