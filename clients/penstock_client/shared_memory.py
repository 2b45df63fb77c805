"""Memory of this process that a server on the same node reads: payloads go there in place of a message.

The memory has no name (memfd_create(2)), so nothing is left of it when both processes have ended, however they end. It
can neither shrink nor lose pages, so a server that has mapped it can read what was once written for as long as it likes.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penstock_client.ring import ALIGNMENT, Ring
from penstock_client.stream_payloads import TOKEN_BYTES, Reference, Share
from penstock_client.wire import MAX_PIECE_BYTES

NAME = "penstock"  # which /proc shows for the memory
SMALLEST = 4096  # bytes; smaller payloads go in the message, where they cost less
SEAL_FUTURE_WRITE = 0x10  # F_SEAL_FUTURE_WRITE of linux/fcntl.h; without it, pages could be taken away
_PAYLOADS = ALIGNMENT  # where payloads begin, after the token
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class SharedMemory:
    """The memory of one data connection, and which of its bytes the trainer rank may still have to read.

    Args:
        window: payload bytes that may be under way on the connection.

    Raises:
        OSError: this system has no such memory.
    """

    def __init__(self, window: int) -> None:
        self._boot = boot_id()
        # A payload that does not fit before the end is placed at the beginning, so one more of the largest is needed.
        self._size = -(-(window + MAX_PIECE_BYTES) // mmap.PAGESIZE) * mmap.PAGESIZE
        self._token = secrets.token_bytes(TOKEN_BYTES)
        self._ring = Ring(_PAYLOADS, self._size)
        self._open: int | None = None  # where the payload begins that is being written
        self._descriptor = _make(self._size)
        try:
            self._bytes = mmap.mmap(self._descriptor, self._size)
            fcntl.fcntl(
                self._descriptor,
                fcntl.F_ADD_SEALS,
                fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | SEAL_FUTURE_WRITE | fcntl.F_SEAL_SEAL,
            )
        except OSError:
            os.close(self._descriptor)
            raise
        self._bytes[:TOKEN_BYTES] = self._token
        self._view = memoryview(self._bytes)

    def share(self) -> Share:
        """Return the payload of SHARE, which offers this memory to a trainer rank."""
        return Share(self._boot, os.getpid(), self._descriptor, self._size, self._token)

    def room(self, size: int) -> memoryview | None:
        """Return memory to write a payload into; nothing else may be placed before `keep` is called.

        Args:
            size: bytes that the payload may have at most.

        Returns:
            `size` bytes; None where no such room is free.
        """
        self._open = self._ring.room(size)
        return None if self._open is None else self._view[self._open : self._open + size]

    def keep(self, size: int, mark: int) -> bytes | None:
        """Keep a payload that has been written into the memory that `room` gave last.

        Args:
            size: its bytes.
            mark: payload bytes sent up to its end; see `release`.

        Returns:
            The reference to send in its place; None where the payload itself should be sent, because it is small or
            lies elsewhere.
        """
        at, self._open = self._open, None
        if at is None or size < SMALLEST:
            return None
        self._ring.place(at, size, mark)
        return Reference(at, size).pack()

    def place(self, payload: NDArray[np.generic], mark: int) -> bytes | None:
        """Copy a payload into the memory.

        Args:
            payload: C-contiguous.
            mark: payload bytes sent up to its end; see `release`.

        Returns:
            The reference to send in its place; None where the payload itself should be sent, because it is small or no
            room is free.
        """
        if payload.nbytes < SMALLEST or (room := self.room(payload.nbytes)) is None:
            return None
        room[:] = payload.data.cast("B")
        return self.keep(payload.nbytes, mark)

    def release(self, mark: int) -> None:
        """Use the bytes of payloads again that the trainer rank has dealt with: those with marks up to `mark`."""
        self._ring.release(mark)

    def close(self) -> None:
        """Give the memory back, once the trainer rank has done so too."""
        self._view.release()
        with suppress(BufferError):  # a traceback may still refer to a payload; the memory then goes with it
            self._bytes.close()
        os.close(self._descriptor)


def boot_id() -> bytes:
    """Return the 16 bytes that the machine has chosen at its last start; other machines have others.

    Raises:
        OSError: this system has none.
    """
    try:
        return bytes.fromhex(_BOOT_ID.read_text().strip().replace("-", ""))
    except ValueError as error:
        raise OSError(f"{_BOOT_ID} holds no number") from error


def _make(size: int) -> int:
    """Return the descriptor of new memory without a name."""
    if not hasattr(os, "memfd_create"):
        raise OSError("this system has no memfd_create")
    descriptor = os.memfd_create(NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.fchmod(descriptor, 0o600)
        os.ftruncate(descriptor, size)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
