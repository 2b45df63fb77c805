"""A trainer rank's buffer: samples arrive in the order of the simulations and leave as batches for training."""

from penstock_server.buffer.buffer import Buffer
from penstock_server.buffer.device_storage import DeviceStorage
from penstock_server.buffer.memory import available_memory, capacity_in_samples
from penstock_server.buffer.policies import PolicyName, check_sizes
from penstock_server.buffer.slots import Reserved, Slot, Slots
from penstock_server.buffer.state import BufferState
from penstock_server.buffer.stats import BufferStats
from penstock_server.buffer.storage import Storage, StorageMaker

__all__ = [
    "Buffer",
    "BufferState",
    "BufferStats",
    "DeviceStorage",
    "PolicyName",
    "Reserved",
    "Slot",
    "Slots",
    "Storage",
    "StorageMaker",
    "available_memory",
    "capacity_in_samples",
    "check_sizes",
]
