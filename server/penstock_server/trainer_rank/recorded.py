"""The supply of a training loop whose samples come from a recording."""

from __future__ import annotations

from typing import Any

from penstock_server.recording import FileSource
from penstock_server.telemetry import Metrics
from penstock_server.trainer_rank.redistribution import ReadPart
from penstock_server.trainer_rank.restore import counts_of, load_counts


class RecordedSupply:
    """A `SampleSupply` that draws from a recording.

    Args:
        source: gives the batches.
        metrics: of the rank; its counts go into checkpoints.
    """

    exhausted = "all epochs done"

    def __init__(self, source: FileSource, metrics: Metrics) -> None:
        self.source, self._metrics = source, metrics

    def after_step(self, batches: int) -> None:
        """Do nothing: the source knows itself when it ends."""

    def before_conclusion(self) -> None:
        """Do nothing: there is nobody to tell."""

    def state(self) -> dict[str, Any]:
        """Return how far the source has come, and the counts."""
        return {"buffer": self.source.state_dict(), "counts": counts_of(self._metrics)}

    def load(self, part: ReadPart) -> None:
        """Continue where the checkpoint was made.

        Args:
            part: returns a part of the checkpoint, by name.

        Raises:
            RecordingError: when the checkpoint belongs to another recording or seed.
        """
        self.source.load_state_dict(part("buffer"))
        load_counts(self._metrics, part("counts"))

    def ingest_blocked_seconds(self) -> float:
        """Return 0: no sample arrives."""
        return 0.0
