"""Atomic writing of files: a reader sees the old file or the new one, never a part of it.

This module is in the client because every other package may import the client.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file under a temporary name, which then replaces `path`.

    The content is not flushed to the disk: after a power failure the new file may be empty.

    Args:
        path: file to replace; need not exist, its folder must.

    Yields:
        A path in the same folder that does not exist, with the same extension. The block writes it. It is removed where
        the block raises, and `path` then stays as it was.
    """
    temporary = path.with_name(f".new-{secrets.token_hex(4)}-{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomic(path: Path, text: str) -> None:
    """Replace the content of a file atomically.

    Args:
        path: file to write; its folder must exist.
        text: the new content.

    Raises:
        OSError: the file cannot be written; it is then left as it was.
    """
    with replacing(path) as temporary:
        temporary.write_text(text)


def write_private(path: Path, text: str) -> None:
    """Write a file that holds secrets: atomically, flushed to the disk, with mode 0600.

    Args:
        path: file to write; its folder must exist.
        text: the new content.

    Raises:
        OSError: the file cannot be written; it is then left as it was.
    """
    with replacing(path) as temporary:
        # O_EXCL refuses a file or a link that somebody else has put there.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
