"""A disk that is full for a while: the error of it, and waiting for room."""

from __future__ import annotations

import errno
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOM = 2**20
"""Bytes: more than the files that a server writes when it starts."""
LOOK_SECONDS = 0.5  # between two tries


def is_full(error: object) -> bool:
    """Return whether an error says that a disk, or a user's share of it, is full.

    Args:
        error: any exception, or None.
    """
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def wait_for_room(folder: Path, seconds: float, given_up: Callable[[], bool]) -> bool:
    """Wait until ROOM bytes can be written.

    Args:
        folder: on the disk.
        seconds: to wait at most.
        given_up: asked between two tries: whether to wait no longer.

    Returns:
        Whether there is room.
    """
    deadline = time.monotonic() + seconds
    while not _has_room(folder):
        if given_up() or time.monotonic() > deadline:
            return False
        time.sleep(LOOK_SECONDS)
    return True


def _has_room(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(ROOM))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return not is_full(error)  # of another failure the next start tells
    return True
