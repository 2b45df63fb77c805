"""How a trainer rank stands."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_server.buffer import BufferStats
from penstock_server.validation import ValidationResult


@dataclass(frozen=True)
class RankStatus:
    """How a trainer rank stands, for the display and the report.

    over: why training has ended, "" while it goes on. error: what it failed of, "" where it did not. buffer is None until the
    fields are known.
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
    warnings: tuple[str, ...] = ()
