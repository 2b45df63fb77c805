"""Standard output of a command that must go on when nobody can read it any more: the terminal is gone, the disk full."""

from __future__ import annotations

import os
import sys
from typing import Any, TextIO


class LastingOutput:
    """Writes to a stream for as long as that is possible, and then nowhere, after one line on standard error.

    Characters that the stream's encoding lacks are replaced.

    Args:
        stream: usually sys.stdout.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lost = False

    def write(self, text: str) -> int:
        """Write text, or drop it where the stream takes nothing any more."""
        if not self._lost:
            encoding = self._stream.encoding or "utf-8"
            try:
                self._stream.write(text.encode(encoding, "replace").decode(encoding))
            except (OSError, ValueError) as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Write out what is buffered."""
        if not self._lost:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._lose(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _lose(self, error: Exception) -> None:
        self._lost = True  # before anything that may fail
        reason = getattr(error, "strerror", None) or str(error)
        try:
            # What is still buffered would fail again when this process ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            print(f"penstock: the output cannot be written any more ({reason}); the study goes on", file=sys.stderr)
        except (OSError, ValueError):
            return  # standard error is lost too: logs and report.json tell the rest
