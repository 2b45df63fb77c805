"""Checkpoints: whole or not there, loaded without executing code."""

from penstock_server.checkpoint.checkpoint import Checkpoint, load_latest, load_latest_if_any, write_checkpoint

__all__ = ["Checkpoint", "load_latest", "load_latest_if_any", "write_checkpoint"]
