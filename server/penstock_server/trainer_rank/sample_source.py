"""What a training loop needs from where its samples come from.

`SampleSource` gives batches. `SampleSupply` is all that differs between an online and an offline study: it has a
source, reacts to the loop's steps and adds its own parts to a checkpoint. Two classes implement it:
`streamed.StreamedSupply`, whose samples come from clients through a buffer, and `recorded.RecordedSupply`, whose
samples come from a recording.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from penstock_server.study import Batch
from penstock_server.trainer_rank.redistribution import ReadPart


class SourceStats(Protocol):
    """The figures of a source of samples at one moment; counts go back to the study's start, across checkpoints.

    `penstock_server.buffer.BufferStats` and `penstock_server.recording.RecordingStats` have them.
    """

    @property
    def population(self) -> int:
        """Samples that may be drawn now."""

    @property
    def unseen(self) -> int:
        """Samples of the population that have not been drawn yet."""

    @property
    def capacity(self) -> int:
        """Samples that the source can hold at once."""

    @property
    def mean_population(self) -> float:
        """Mean population over all batches drawn."""

    @property
    def received(self) -> int:
        """Samples that the source has had so far, drawn or not."""

    @property
    def presentations(self) -> int:
        """Samples drawn, each draw counted."""

    @property
    def trained_unique(self) -> int:
        """Different samples drawn at least once."""

    @property
    def times_seen(self) -> Mapping[int, int]:
        """Number of samples received, by how often each has been drawn."""

    @property
    def stall_seconds(self) -> float:
        """Time that training has waited in `get`, in seconds."""

    @property
    def put_blocked_seconds(self) -> float:
        """Time that producers have waited for room, in seconds; 0 where nothing produces."""

    @property
    def production_ended(self) -> bool:
        """Whether no new sample will come."""


class SampleSource(Protocol):
    """Gives batches. One thread calls `get`; any thread may call the rest."""

    def get(self, batch_size: int, timeout: float | None = None) -> Batch | None:
        """Wait for the next batch.

        Args:
            batch_size: number of samples.
            timeout: seconds to wait at most; None: until there is one.

        Returns:
            The batch; None after the timeout, when no batch is left, or after `close`.
        """

    @property
    def drained(self) -> bool:
        """Whether no batch is left and none will come."""

    @property
    def producer_blocked(self) -> bool:
        """Whether a producer waits until a sample is drawn."""

    def stats(self) -> SourceStats:
        """Return the figures of this moment."""

    def close(self) -> None:
        """Give no further batch. May be called again."""


class SampleSupply(Protocol):
    """Supplies a training loop with batches, and with what else depends on where samples come from.

    The loop calls `load` at most once, before its first step. It calls all other methods on the training thread.
    """

    @property
    def source(self) -> SampleSource:
        """Where batches are drawn from."""

    @property
    def exhausted(self) -> str:
        """Why training has ended once the source is drained, for the report."""

    def after_step(self, batches: int) -> None:
        """React to a training step, before its log line and checkpoint.

        Args:
            batches: training steps so far, those of earlier runs of the server included.
        """

    def before_conclusion(self) -> None:
        """React to the end of training, before the last validation and checkpoint are made."""

    def state(self) -> dict[str, Any]:
        """Return the parts of a checkpoint about samples and their counts ("buffer", "counts" and others).

        The loop calls it before it reads its own parts. Samples may arrive between the two.
        """

    def load(self, part: ReadPart) -> None:
        """Restore the samples and counts from a checkpoint.

        Args:
            part: returns this rank's part of the checkpoint, by name.

        Raises:
            PenstockError: when the checkpoint belongs to other samples.
            ValueError: when the checkpoint belongs to another buffer.
        """

    def ingest_blocked_seconds(self) -> float:
        """Return for how many seconds checkpoints have kept arriving samples waiting, since this process began."""
