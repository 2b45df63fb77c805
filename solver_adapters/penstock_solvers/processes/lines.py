"""Splitting the output of a program into lines while it runs."""

from __future__ import annotations

LONGEST_LINE = 1 << 20  # bytes; longer lines are split, so that output without line feeds takes bounded memory


class LineSplitter:
    """Collects chunks of output and returns complete lines, in time proportional to the number of bytes."""

    def __init__(self) -> None:
        self._partial: list[bytes] = []
        self._size = 0  # bytes of the incomplete line

    def feed(self, chunk: bytes) -> list[str]:
        """Take the next chunk of output.

        Args:
            chunk: the bytes; empty at the end of the output.

        Returns:
            The lines that are now complete, without their line ends. At the end of the output this includes an
            incomplete last line.
        """
        first, *others = chunk.split(b"\n")
        self._partial.append(first)
        self._size += len(first)
        lines = []
        for other in others:
            lines.append(self._complete())
            self._partial, self._size = [other], len(other)
        if self._size >= LONGEST_LINE or (not chunk and self._size):
            lines.append(self._complete())
        return lines

    def _complete(self) -> str:
        line = b"".join(self._partial).decode(errors="replace").rstrip("\r")
        self._partial, self._size = [], 0
        return line
