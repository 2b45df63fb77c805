"""metrics.jsonl and TensorBoard files, written from the same numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from penstock_server.buffer import BufferStats
from penstock_server.clock import TrainingClock
from penstock_server.validation import ValidationResult


class MetricsLog:
    """One JSON object a line: {"kind": "train" | "validation", "time": s since the first batch, "batches": ..., ...}."""

    def __init__(self, directory: Path, *, append: bool) -> None:
        self._file = (directory / "metrics.jsonl").open("a" if append else "w", buffering=1)
        self._board = SummaryWriter(str(directory / "tensorboard"))

    def training(
        self,
        clock: TrainingClock,
        batches: int,
        loss: float | None,
        stats: BufferStats,
        learning_rate: float,
    ) -> None:
        """A line about training and the buffer."""
        values = {
            "training_seconds": round(clock.training_seconds(), 3),
            "loss": loss,
            "learning_rate": learning_rate,
            "samples_per_second": clock.recent_samples_per_second(),
            "buffer_population": stats.population,
            "buffer_unseen": stats.unseen,
            "received": stats.received,
            "presentations": stats.presentations,
            "stall_seconds": stats.stall_seconds,
            "put_blocked_seconds": stats.put_blocked_seconds,
            "production_ended": int(stats.production_ended),
        }
        self._write("train", clock.wall_seconds(), batches, values)

    def validation(self, time: float, batches: int, result: ValidationResult) -> None:
        """A line about a validation."""
        figures = {**result.figures(), "seconds": result.seconds}
        more = {key: figures.pop(key) for key in ("fields", "rollout")}
        if result.rollout is not None:
            figures["rollout_relative_l2"] = result.rollout.errors.relative_l2
        self._write("validation", time, batches, figures, **more)

    def close(self) -> None:
        self._file.close()
        self._board.close()

    def _write(self, kind: str, time: float, batches: int, values: dict[str, Any], **more: Any) -> None:
        self._file.write(
            json.dumps({"kind": kind, "time": round(time, 3), "batches": batches, **values, **more}) + "\n"
        )
        for name, value in values.items():
            if value is not None:
                self._board.add_scalar(f"{kind}/{name}", value, batches)
