"""Held-out simulations, and the errors of the surrogate on them."""

from penstock_server.validation.evaluation import ValidationResult, evaluate
from penstock_server.validation.pictures import (
    FILE,
    Snapshot,
    Snapshots,
    read_snapshots,
    take_snapshots,
    write_snapshots,
)
from penstock_server.validation.store import ValidationStore

__all__ = [
    "FILE",
    "Snapshot",
    "Snapshots",
    "ValidationResult",
    "ValidationStore",
    "evaluate",
    "read_snapshots",
    "take_snapshots",
    "write_snapshots",
]
