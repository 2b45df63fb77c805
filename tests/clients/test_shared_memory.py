"""The client's side of shared memory: which bytes are free, and what others can do with the memory."""

from __future__ import annotations

import fcntl
import mmap
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_client.ring import ALIGNMENT, Ring
from penstock_client.shared_memory import SMALLEST, SharedMemory
from penstock_client.stream_payloads import Reference
from penstock_client.wire import MAX_PIECE_BYTES

FIRST, SIZE = ALIGNMENT, 40 * ALIGNMENT
WINDOW = 1 << 20


@given(
    st.lists(st.tuples(st.integers(1, 20 * ALIGNMENT), st.integers(0, 9 * ALIGNMENT), st.integers(0, 6)), max_size=80)
)
def test_payloads_never_lie_on_bytes_that_are_still_to_be_read(payloads: list[tuple[int, int, int]]) -> None:
    ring, waiting, used = Ring(FIRST, SIZE), [], FIRST
    for mark, (size, room, kept) in enumerate(payloads):
        waiting = waiting[-kept:] if kept else []
        ring.release(mark - kept - 1)
        waiting = [other for other in waiting if other[2] > mark - kept - 1]
        at = ring.room(size + room)
        if at is None:
            assert waiting or size + room > SIZE - FIRST, "an empty ring has no room"
            continue
        ring.place(at, size, mark)
        assert at % ALIGNMENT == 0
        assert FIRST <= at <= SIZE - size
        assert at <= used, "bytes were left out, which would never have been written"
        used = max(used, at + -(-size // ALIGNMENT) * ALIGNMENT)
        assert all(at + size <= begin or at >= end for begin, end, _ in waiting), (at, size, waiting)
        waiting.append((at, at + size, mark))


def test_what_credit_allows_has_room_and_the_same_bytes_serve_again() -> None:
    ring, sizes = Ring(FIRST, WINDOW + MAX_PIECE_BYTES), np.random.default_rng(0).integers(1, 64, 5000) * 4096
    sent, under_way, places = 0, [], []
    for size in sizes:
        while sum(under_way) + size > WINDOW:
            under_way.pop(0)
        ring.release(sent - sum(under_way))
        sent += int(size)
        places.append(at := ring.room(int(size)))
        if at is not None:
            ring.place(at, int(size), sent)
        under_way.append(int(size))
    assert places.count(None) < 20  # while it finds out how much it needs
    assert max(p for p in places if p is not None) < 4 * WINDOW


def test_memory_can_neither_shrink_nor_lose_its_pages() -> None:
    memory = SharedMemory(WINDOW)
    share = memory.share()
    assert os.fstat(share.descriptor).st_mode & 0o777 == 0o600
    assert os.fstat(share.descriptor).st_size == share.size
    assert os.pread(share.descriptor, 16, 0) == share.token
    for spoil in (
        lambda: os.ftruncate(share.descriptor, 0),
        lambda: os.ftruncate(share.descriptor, share.size + 1),
        lambda: os.pwrite(share.descriptor, b"x", 0),
        lambda: memory._bytes.madvise(mmap.MADV_REMOVE, 0, mmap.PAGESIZE),
        lambda: fcntl.fcntl(share.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE),
    ):
        with pytest.raises(PermissionError):
            spoil()
    memory.close()


def test_a_payload_is_where_its_reference_says() -> None:
    memory = SharedMemory(WINDOW)
    share, values = memory.share(), np.arange(5000, dtype="<f8").reshape(50, 100)
    frame = memory.place(values, mark=values.nbytes)
    assert frame is not None
    reference = Reference.unpack(frame)
    assert reference.size == values.nbytes
    assert os.pread(share.descriptor, reference.size, reference.offset) == values.tobytes()
    assert memory.place(np.zeros(SMALLEST - 1, np.uint8), mark=50_000) is None  # goes in the message
    assert memory.place(np.zeros(share.size, np.uint8), mark=60_000) is None  # has no room
    memory.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(share.descriptor)
