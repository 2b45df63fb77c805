"""Buffers' states, for tests."""

from __future__ import annotations

import numpy as np

from penstock_server.buffer import BufferState


def in_memory(state: BufferState) -> BufferState:
    """A state whose samples have been read, as a checkpoint gives it back."""
    return {"arrays": {name: np.asarray(array) for name, array in state["arrays"].items()}, "meta": state["meta"]}
