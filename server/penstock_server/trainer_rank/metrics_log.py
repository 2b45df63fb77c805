"""metrics.jsonl and TensorBoard files, written from the same numbers."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock_server.telemetry import LineFile, strict_json
from penstock_server.trainer_rank.clock import TrainingClock
from penstock_server.trainer_rank.status import SourceTotals
from penstock_server.validation import ValidationResult

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_log = logging.getLogger("penstock.metrics_log")


class MetricsLog:
    """Writes lines of training and validation.

    A line of metrics.jsonl is {"kind": "train" | "validation", "time": ..., "batches": ..., ...}; the time is in
    seconds since the first batch. A full disk does not end a study: lines of metrics.jsonl that cannot be written are
    counted, and TensorBoard's files end where they cannot be written.

    Args:
        directory: the study's run directory.
        append: whether to continue the metrics.jsonl that is there; else it is deleted.
    """

    def __init__(self, directory: Path, *, append: bool) -> None:
        path = directory / "metrics.jsonl"
        if not append:
            path.unlink(missing_ok=True)
        self._file = LineFile(path)
        self._board_ended = ""
        self._uncaught = threading.excepthook
        threading.excepthook = self._writer_failed
        self._board_directory = directory / "tensorboard"
        self._board: SummaryWriter | None = None  # until the first line, and from where it cannot be written

    def training(
        self,
        clock: TrainingClock,
        batches: int,
        loss: float | None,
        learning_rate: float,
        totals: SourceTotals,
    ) -> None:
        """Write a line about training and the source of samples.

        Args:
            clock: of this rank.
            batches: training steps so far.
            loss: of the last batch, in normalised units; None before the first.
            learning_rate: of the first parameter group.
            totals: figures of all ranks together.
        """
        values = {
            "training_seconds": round(clock.training_seconds(), 3),
            "loss": loss,
            "learning_rate": learning_rate,
            "samples_per_second": totals.samples_per_second,
            "buffer_population": totals.population,
            "buffer_unseen": totals.unseen,
            "received": totals.received,
            "presentations": totals.presentations,
            "stall_seconds": totals.stall_seconds,
            "put_blocked_seconds": totals.put_blocked_seconds,
            "production_ended": int(totals.production_ended),
        }
        self._write("train", clock.wall_seconds(), batches, values)

    def validation(self, time: float, batches: int, result: ValidationResult) -> None:
        """Write a line about a validation.

        Args:
            time: seconds since the first batch.
            batches: training steps so far.
            result: of the validation.
        """
        figures = {**result.figures(), "seconds": result.seconds}
        more = {key: figures.pop(key) for key in ("fields", "rollout", "members") if key in figures}
        if result.rollout is not None:
            figures["rollout_relative_l2"] = result.rollout.errors.relative_l2
        if result.members is not None:
            figures["spread"] = result.members.spread
        self._write("validation", time, batches, figures, **more)

    def warnings(self) -> tuple[str, ...]:
        """Return warnings for the report about what could not be written."""
        return (*self._file.warnings(), *([self._board_ended] if self._board_ended else []))

    def close(self) -> None:
        """Write what TensorBoard has not written yet, and close its files."""
        if (board := self._board) is not None:
            self._on_board("the end", board.close)
        if threading.excepthook == self._writer_failed:
            threading.excepthook = self._uncaught

    def _writer_failed(self, caught: threading.ExceptHookArgs) -> None:
        """Log in one line that TensorBoard's thread could not write; `_on_board` is told of it in its next call."""
        if type(caught.thread).__name__ == "_AsyncWriterThread" and isinstance(caught.exc_value, OSError):
            _log.warning("tensorboard/ cannot be written: %s", caught.exc_value)
        else:
            self._uncaught(caught)

    def _write(self, kind: str, time: float, batches: int, values: dict[str, Any], **more: Any) -> None:
        line = {"kind": kind, "time": round(time, 3), "batches": batches, **values, **more}
        self._file.append(strict_json(line))
        if self._board is None and not self._board_ended:
            self._on_board("the start", self._open_board)
        if (board := self._board) is not None:

            def add() -> None:
                for name, value in values.items():
                    if value is not None and math.isfinite(value):
                        board.add_scalar(f"{kind}/{name}", value, batches)

            self._on_board(f"batch {batches}", add)

    def _open_board(self) -> None:
        from torch.utils.tensorboard import SummaryWriter  # imported here, since it need not delay the first batch

        self._board = SummaryWriter(str(self._board_directory))

    def _on_board(self, when: str, write: Callable[[], None]) -> None:
        """Write to TensorBoard. It writes from its own thread and raises an error there in a later call."""
        try:
            write()
        except OSError as error:
            self._board, self._board_ended = None, f"tensorboard/ ends at {when}: {error.strerror or error}"
            _log.warning("%s", self._board_ended)
