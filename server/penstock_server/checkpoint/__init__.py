"""Checkpoints: complete or absent, and loaded without executing code."""

from penstock_server.checkpoint.checkpoint import Checkpoint, load_latest, load_latest_if_any, write_checkpoint
from penstock_server.checkpoint.part import CheckpointError, Rows

__all__ = ["Checkpoint", "CheckpointError", "Rows", "load_latest", "load_latest_if_any", "write_checkpoint"]
