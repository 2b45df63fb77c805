"""Decisions read from bytes, so that a fuzzer that changes bytes changes decisions; and the values at which parsers break."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

NUMBERS = tuple(
    sorted(
        {2**k + d for k in (0, 3, 7, 8, 15, 16, 20, 24, 31, 32, 53, 62, 63, 64) for d in (-1, 0, 1)}
        | {-(2**k) for k in (0, 1, 31, 63)}
        | {(1 << 16) + 2, 10**9, 10**18}
    )
)
DOUBLES = (0.0, -0.0, 1.5, -1.0, 1e39, -1e300, 5e-324, 3.4e38, float("nan"), float("inf"), float("-inf"))


class Choices:
    """Reads decisions from the front of `data`; when it is used up every choice is 0 and `more` is False."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def more(self) -> bool:
        return self._at < len(self._data)

    def byte(self) -> int:
        at = self._at
        self._at = at + 1
        return self._data[at] if at < len(self._data) else 0

    def below(self, limit: int) -> int:
        """A number from 0 to limit - 1."""
        value = self.byte()
        if limit > 256:
            value |= self.byte() << 8
        return value % limit

    def of(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def take(self, limit: int) -> bytes:
        """Up to `limit` bytes as they stand."""
        size = self.below(limit + 1)
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def number(self, size: int) -> bytes:
        """A little-endian number of `size` bytes: one at which parsers break, or any."""
        if self.byte() & 3:
            return (self.of(NUMBERS) % (1 << 8 * size)).to_bytes(size, "little")
        return self.take(size).ljust(size, b"\0")
