"""When the file of held-out time steps for pictures is written: after a validation, now and then, and at the end."""

from __future__ import annotations

import logging
import time

from penstock_server.trainer_rank.context import RankContext
from penstock_server.trainer_rank.parts import TrainingParts
from penstock_server.validation import (
    FILE,
    ValidationResult,
    steps_for_pictures,
    take_snapshots,
    write_snapshots,
)

PAUSE_SECONDS = 5.0  # at least, between two times
COST = 50  # the pause is at least so many times as long as the last writing took, which is thus 2 % of the time

_log = logging.getLogger("penstock.pictures")


class Pictures:
    """Writes validation_snapshots.h5 on rank 0, for `penstock watch` and `penstock plot`.

    Args:
        context: the rank.
        parts: what is trained.
    """

    def __init__(self, context: RankContext, parts: TrainingParts) -> None:
        self._context, self._parts = context, parts
        self._due = time.monotonic()

    def after_validation(self, result: ValidationResult) -> None:
        """Write the file if it is due. A full disk must not end a study: the page of pictures then stays as it was."""
        begun = time.monotonic()
        if self._context.rank or begun < self._due:
            return
        if failure := self._write(result):
            _log.warning("%s could not be written: %s", FILE, failure)
        now = time.monotonic()
        self._due = now + max(PAUSE_SECONDS, COST * (now - begun))

    def conclude(self, result: ValidationResult | None) -> None:
        """Write the file at the end of training; a failure becomes a warning of the report.

        Args:
            result: of the last validation; None where there was none.
        """
        if failure := self._write(result):
            self._context.warnings.append(f"{FILE} could not be written ({failure})")

    def _write(self, result: ValidationResult | None) -> str:
        """Write the file; return why that failed, "" where it did not."""
        store = self._parts.validation
        if not len(store):
            return ""
        errors = None if result is None else result.by_simulation
        steps = steps_for_pictures(store.spec.width)
        try:
            write_snapshots(
                self._context.directory / FILE, take_snapshots(store, self._parts.trainer, steps=steps, errors=errors)
            )
        except OSError as error:
            return str(error)
        return ""
