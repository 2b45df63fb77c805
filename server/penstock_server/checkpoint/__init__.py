"""Checkpoints: complete or absent, and loaded without executing code."""

from penstock_server.checkpoint.checkpoint import (
    Checkpoint,
    load_latest,
    load_latest_if_any,
    read_last,
    write_checkpoint,
)
from penstock_server.checkpoint.part import CheckpointError, Rows, check_part

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Rows",
    "check_part",
    "load_latest",
    "load_latest_if_any",
    "read_last",
    "write_checkpoint",
]
