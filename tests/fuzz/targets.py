"""Every target by name: a function of bytes that returns how many messages it made of them, and raises for a finding."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

from client_targets import codecs, heartbeat, session
from coordinator_target import coordinator
from file_targets import checkpoint, connect_file
from ingest_target import ingest

Target = Callable[[bytes], int]

TARGETS: dict[str, Target] = {
    "ingest": ingest,
    "coordinator": coordinator,
    "codecs": codecs,
    "session": session,
    "heartbeat": heartbeat,
    "connect_file": connect_file,
    "checkpoint": checkpoint,
}
SHARES = {
    "ingest": 0.4,
    "coordinator": 0.25,
    "codecs": 0.15,
    "session": 0.1,
    "heartbeat": 0.05,
    "connect_file": 0.03,
    "checkpoint": 0.02,
}
"""Of a number of messages over all targets; those that write files are slow."""

MAX_BYTES = 1024  # of an input
MAX_ALLOCATED = (
    8 * 2**20
)  # bytes; a time step near the ledger's end alone takes 2 MiB, and everything else here is small


def measured(target: Target, data: bytes) -> int:
    """Run a target and see that no input, however short, makes it allocate much."""
    tracemalloc.start()
    try:
        messages = target(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= MAX_ALLOCATED, f"{peak:,} bytes were allocated for an input of {len(data)}"
    return messages
