"""Recognise the error of a full disk, and find out whether there is room again."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

ROOM = 2**20
"""Bytes: more than the files that a server writes when it starts."""


def is_full(error: object) -> bool:
    """Return whether the cause of an error is a full disk or an exhausted quota.

    Args:
        error: any exception, or None.
    """
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def has_room(folder: Path) -> bool:
    """Return whether the disk has room for ROOM bytes.

    An error other than a full disk counts as room: the next start of the server meets the same error and reports it.

    Args:
        folder: on the disk.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(ROOM))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return not is_full(error)
    return True
