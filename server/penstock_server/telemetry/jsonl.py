"""Files of one JSON object a line, appended to by several processes and lives of a study, any of which may end in mid-line."""

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
    """Appends to a file, which need not be there. A line that the disk does not take is dropped and counted in `lost`.

    A study must not end because its log is full: the first lost line is said on standard output, and the next tries again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.lost = 0

    def append(self, line: str) -> None:
        """Write one line, in one piece: lines of other processes come before or after it."""
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
        """What is missing, for the report."""
        return (f"{self._path.name}: {self.lost} lines could not be written",) if self.lost else ()


def _cut_torn_line(descriptor: int) -> int:
    """Take away what a process that was killed has left of a line; returns the file's size."""
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
    """The whole lines of a file, none where there is no file; half a line is passed over."""
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
