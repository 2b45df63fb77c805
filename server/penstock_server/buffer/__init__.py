"""A trainer rank's buffer: what arrives in the order of the simulations leaves as batches fit for training."""

from penstock_server.buffer.buffer import Buffer, Slot
from penstock_server.buffer.memory import available_memory, capacity_in_samples
from penstock_server.buffer.policies import PolicyName, check_sizes
from penstock_server.buffer.state import BufferState
from penstock_server.buffer.stats import BufferStats

__all__ = [
    "Buffer",
    "BufferState",
    "BufferStats",
    "PolicyName",
    "Slot",
    "available_memory",
    "capacity_in_samples",
    "check_sizes",
]
