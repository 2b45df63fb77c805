"""Held-out simulations, and the errors of the surrogate on them."""

from penstock_server.telemetry.snapshots import FILE, Snapshot, Snapshots, read_snapshots, write_snapshots
from penstock_server.validation.evaluation import ValidationResult, evaluate
from penstock_server.validation.pictures import steps_for_pictures, take_snapshots
from penstock_server.validation.store import ValidationStore

__all__ = [
    "FILE",
    "Snapshot",
    "Snapshots",
    "ValidationResult",
    "ValidationStore",
    "evaluate",
    "read_snapshots",
    "steps_for_pictures",
    "take_snapshots",
    "write_snapshots",
]
