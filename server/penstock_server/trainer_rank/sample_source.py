"""What training draws its samples from: a buffer that a stream fills (`buffer.Buffer`), or a recording (`file_source.FileSource`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from penstock_server.buffer import BufferStats
from penstock_server.study import Batch


class SampleSource(Protocol):
    """One thread gets; `stats` and `close` may come from any."""

    def get(self, batch_size: int, timeout: float | None = None) -> Batch | None:
        """The next batch, waiting for it, or for so many seconds; None also when there is none left, or after `close`."""

    @property
    def drained(self) -> bool:
        """No batch is left, and none will come."""

    @property
    def producer_blocked(self) -> bool:
        """True while a producer waits for a sample to be drawn."""

    def stats(self) -> BufferStats:
        """All figures, of one moment."""

    def close(self) -> None:
        """Give up: nothing more is drawn. May be called again."""

    def state_dict(self) -> Mapping[str, Any]:
        """For a checkpoint."""

    def load_state_dict(self, state: Any) -> None:
        """Go on from what `state_dict` returned. Raises ValueError for the state of another source."""
