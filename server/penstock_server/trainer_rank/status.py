"""How a trainer rank stands."""

from __future__ import annotations

from dataclasses import dataclass, field

from penstock_server.buffer import BufferStats
from penstock_server.validation import ValidationResult


@dataclass
class CheckpointFigures:
    """Checkpoints of this life. count: written; failed: not taken by the disk. seconds: that training waited for them.

    ingest_blocked_seconds: for how long what arrives could not be put away meanwhile.
    """

    count: int = 0
    failed: int = 0
    seconds: float = 0.0
    ingest_blocked_seconds: float = 0.0


@dataclass(frozen=True)
class RankStatus:
    """How a trainer rank stands, for the display and the report.

    over: why training has ended, "" while it goes on. error: what it failed of, "" where it did not. buffer is None until the
    fields are known. first_step, last_step: time.monotonic() of this life's first and last training step.
    """

    over: str = ""
    error: str = ""
    device: str = "cpu"
    batches: int = 0
    samples_per_second: float = 0.0
    mean_samples_per_second: float = 0.0
    stall_fraction: float = 0.0
    loss: float | None = None
    buffer: BufferStats | None = None
    received: int = 0
    duplicates: int = 0
    incomplete: int = 0
    bytes_received: int = 0
    refused: dict[str, int] | None = None
    validation: ValidationResult | None = None
    validated: int = 0
    first_step: float | None = None
    last_step: float | None = None
    checkpoints: CheckpointFigures = field(default_factory=CheckpointFigures)
    warnings: tuple[str, ...] = ()
