"""Reading a file of JSON lines while other processes append to it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

CHUNK = 4 * 2**20  # bytes of one look, so that a long file does not keep the page from answering
KNOWN = 64  # last bytes of what has been read, by which a file is known again


class GrowingLines:
    """The lines of a file of JSON lines, each given once.

    A line counts when its newline is there. A process that was killed may leave a part of a line, which the next one
    cuts off (`penstock_server.telemetry.LineFile`). A file that was replaced or made shorter is read again from its
    start.

    Args:
        path: the file; it need not exist.

    Attributes:
        starts: how often reading has begun at the file's start; it grows where the lines given before are void.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0  # the byte after the last newline that has been read
        self._file = (0, 0)  # device and inode
        self._known = b""
        self.starts = 1

    def read(self, most: int = CHUNK) -> list[dict[str, Any]]:
        """Return the objects of the lines that are new since the last call.

        Args:
            most: bytes to read, at least one line; the rest comes with later calls.

        Returns:
            The objects, in the order of the file; empty also where `starts` has grown. Lines that are no JSON object
            are skipped.

        Raises:
            OSError: the file cannot be read.
        """
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if self._at:
                self._restart((0, 0))
            return []
        try:
            if not self._is_known(descriptor):
                return []
            data = self._whole_lines(descriptor, most)
        finally:
            os.close(descriptor)
        self._at += len(data)
        self._known = (self._known + data)[-KNOWN:]
        return [value for line in data.split(b"\n") if (value := _parsed(line)) is not None]

    def _is_known(self, descriptor: int) -> bool:
        """Whether the file is the one that has been read so far; where it is not, start again."""
        found = os.fstat(descriptor)
        file = (found.st_dev, found.st_ino)
        if not self._at:
            self._file = file
            return True
        # A new file may have the number of the one that it replaces.
        before = os.pread(descriptor, len(self._known), self._at - len(self._known))
        if file == self._file and before == self._known:
            return True
        self._restart(file)
        return False

    def _restart(self, file: tuple[int, int]) -> None:
        self._at, self._known, self._file = 0, b"", file
        self.starts += 1

    def _whole_lines(self, descriptor: int, most: int) -> bytes:
        data = os.pread(descriptor, most, self._at)
        while (end := data.rfind(b"\n")) < 0 and (more := os.pread(descriptor, most, self._at + len(data))):
            data += more
        return data[: end + 1]


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
