"""Files of JSON lines, which several processes append to, each of which may be killed while it writes a line."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_log = logging.getLogger("penstock.jsonl")


class LineFile:
    """A file of lines to append to.

    A study must not end because a disk is full: a line that cannot be written is dropped and counted. The first one is
    logged, and every further line is tried.

    Args:
        path: the file; created with the first line.

    Attributes:
        lost: number of lines that could not be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.lost = 0

    def append(self, line: str) -> None:
        """Write one line, which lines of other processes never interrupt.

        Args:
            line: the line, without its newline.
        """
        data = (line + "\n").encode()
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                whole = _cut_torn_line(descriptor)
                if (written := os.write(descriptor, data)) < len(data):
                    os.ftruncate(descriptor, whole)
                    raise OSError(errno.ENOSPC, f"{written} of {len(data)} bytes written")
            finally:
                os.close(descriptor)
        except OSError as error:
            self.lost += 1
            if self.lost == 1:
                _log.warning("a line of %s is lost: %s", self._path, error)

    def warnings(self) -> tuple[str, ...]:
        """Return what is missing, for the report."""
        return (f"{self._path.name}: {self.lost} lines could not be written",) if self.lost else ()


def _cut_torn_line(descriptor: int) -> int:
    """Remove the part of a line that a killed process has left; returns the size of the file."""
    size = end = os.fstat(descriptor).st_size
    while end > 0:
        begin = max(0, end - 4096)
        newline = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if newline >= 0:
            end = begin + newline + 1
            break
        end = begin
    if end < size:
        os.ftruncate(descriptor, end)
    return end


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read the lines of a file.

    Args:
        path: the file; it need not exist.

    Yields:
        The object of each complete line; incomplete lines and lines that are no JSON object are skipped.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict) and line.endswith(b"\n"):
                yield value
