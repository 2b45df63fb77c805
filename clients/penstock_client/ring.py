"""Which bytes of a shared memory are free: payloads are placed one after another and given back in the same order."""

from __future__ import annotations

from collections import deque

ALIGNMENT = 64  # bytes; a payload begins at a multiple, as fast copies like it


class Ring:
    """Finds room for payloads in a range of bytes.

    At first it goes round in a small part of the range, likely to stay in a processor's cache, and in a larger one once
    that has been full. The bytes that have ever been used are one stretch from `first`.

    Args:
        first: first byte of the range, a multiple of ALIGNMENT.
        size: one past its last byte.
    """

    def __init__(self, first: int, size: int) -> None:
        self._first, self._size = first, size
        self._placed: deque[tuple[int, int]] = deque()  # first byte and mark of each payload, the oldest first
        self._head = first  # where the newest payload ends
        self._turn = first + (size - first) // 8  # where it goes back to the beginning

    def room(self, size: int) -> int | None:
        """Find room for a payload.

        Args:
            size: its bytes, more than 0.

        Returns:
            Its first byte; None where no room is free.
        """
        return self._room(_rounded(size))

    def place(self, at: int, size: int, mark: int) -> None:
        """Take the room that was found last.

        Args:
            at: its first byte.
            size: bytes of the payload, at most as many as room was found for.
            mark: number with which `release` gives it back; none may be smaller than the one before.
        """
        self._head = at + _rounded(size)
        self._placed.append((at, mark))

    def release(self, mark: int) -> None:
        """Give back every payload whose mark is at most `mark`."""
        placed = self._placed
        while placed and placed[0][1] <= mark:
            placed.popleft()

    def _room(self, needed: int) -> int | None:
        if not self._placed:
            return self._first if self._first + needed <= self._size else None
        tail, head = self._placed[0][0], self._head
        if head <= tail:  # the newest payload lies below the oldest
            if head + needed <= tail:
                return head
            self._turn = min(2 * self._turn, self._size)
            return None
        if head + needed <= self._turn:
            return head
        if self._first + needed <= tail:
            return self._first
        if head + needed <= self._size:
            self._turn = max(self._turn, head + needed)
            return head
        return None


def _rounded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
