"""Figures of a recording that training draws from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RecordingStats:
    """Figures of training on a recording, at one moment; counts go back to the start of the study, across checkpoints.

    Named as those of a buffer (`penstock_server.buffer.BufferStats`), so that logs and reports of offline studies read
    alike: all samples are there from the start and stay, and nothing produces more.

    Attributes:
        samples: number of samples in the recording.
        presentations: samples drawn, each draw counted.
        stall_seconds: time that training has waited for a batch, in seconds.
    """

    samples: int
    presentations: int
    stall_seconds: float

    @property
    def population(self) -> int:
        """Samples that may be drawn: all."""
        return self.samples

    @property
    def capacity(self) -> int:
        """Samples that there is room for: those that there are."""
        return self.samples

    @property
    def received(self) -> int:
        """Samples that there have been: all."""
        return self.samples

    @property
    def mean_population(self) -> float:
        """Mean population over all batches drawn."""
        return float(self.samples)

    @property
    def trained_unique(self) -> int:
        """Different samples drawn at least once."""
        return min(self.presentations, self.samples)

    @property
    def unseen(self) -> int:
        """Samples that have not been drawn yet."""
        return self.samples - self.trained_unique

    @property
    def times_seen(self) -> dict[int, int]:
        """Number of samples, by how often each has been drawn: once in each epoch."""
        epochs, more = divmod(self.presentations, self.samples)
        return {epochs: self.samples - more} | ({epochs + 1: more} if more else {})

    @property
    def put_blocked_seconds(self) -> float:
        """0: nothing produces samples."""
        return 0.0

    @property
    def production_ended(self) -> bool:
        """True: nothing produces samples."""
        return True
