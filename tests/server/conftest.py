"""What holds for every test of the server's rooms."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models in these tests are too small to be worth two threads, which beside other processes spin while they wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="module")
def no_thread_is_left_behind() -> Iterator[None]:
    """A process may run many studies: whatever a closed engine leaves running adds up there."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 5
    while (left := set(threading.enumerate()) - before) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left, f"threads that outlived their tests: {sorted(thread.name for thread in left)}"
