"""A trainer rank's buffer: samples arrive in the order of the simulations and leave as batches for training."""

from penstock_server.buffer.buffer import Buffer
from penstock_server.buffer.memory import available_memory, capacity_in_samples
from penstock_server.buffer.policies import PolicyName, check_sizes
from penstock_server.buffer.slots import Reserved, Slot, Slots
from penstock_server.buffer.state import BufferState
from penstock_server.buffer.stats import BufferStats

__all__ = [
    "Buffer",
    "BufferState",
    "BufferStats",
    "PolicyName",
    "Reserved",
    "Slot",
    "Slots",
    "available_memory",
    "capacity_in_samples",
    "check_sizes",
]
