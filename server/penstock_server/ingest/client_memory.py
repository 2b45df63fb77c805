"""Memory of a client on this node, from which a trainer rank reads payloads (SHARE of docs/wire-format.md).

What a client says about its memory is checked before anything is mapped, and what it says about a payload before
anything is read. It may change the memory at any time, so whoever reads values copies them before checking them.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import resource
import stat
from pathlib import Path
from weakref import finalize

from penstock_client.errors import WireError
from penstock_client.shared_memory import NAME, SEAL_FUTURE_WRITE, boot_id
from penstock_client.stream_payloads import TOKEN_BYTES, Reference, Share

SEALS = fcntl.F_SEAL_SHRINK | SEAL_FUTURE_WRITE
"""Seals without which pages could vanish while they are read, which kills the reader: no smaller size, no holes."""


class NotTaken(Exception):
    """The memory is not taken; the text says why."""


class ClientMemory:
    """A client's memory, mapped read-only until this object and all views of it are gone.

    Args:
        share: what the client says about it.
        largest: bytes that it may have at most.

    Raises:
        NotTaken: it is not on this machine, not of this user, or not as announced.
    """

    def __init__(self, share: Share, largest: int) -> None:
        if not TOKEN_BYTES < share.size <= largest:
            raise NotTaken(f"{share.size} bytes, expected at most {largest}")
        self.share = share
        self.used = True  # since this was last set to False
        self._path = Path(f"/proc/{share.pid}/fd/{share.descriptor}")
        try:
            if share.boot != boot_id():
                raise NotTaken("the client is on another machine")
            self._descriptor = _open(self._path)
            finalize(self, os.close, self._descriptor)
            limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            if limit != resource.RLIM_INFINITY and 2 * self._descriptor > limit:
                raise NotTaken("half of the files that this process may open are open: the rest is for connections")
            found = os.fstat(self._descriptor)
            self._identity = found.st_dev, found.st_ino
            self._check(found.st_size)
            self._view = memoryview(mmap.mmap(self._descriptor, share.size, prot=mmap.PROT_READ))
            self._written = self._measure()
        except OSError as error:
            raise NotTaken(str(error)) from error

    def read(self, reference: Reference) -> memoryview:
        """Return a payload, without copying it.

        Args:
            reference: where it is.

        Raises:
            WireError: it is empty, is not within the memory, or has never been written.
        """
        self.used = True
        end = reference.offset + reference.size
        if not reference.size or end > self.share.size:
            raise WireError(
                f"reference to {reference.size} bytes from {reference.offset}: the shared memory has {self.share.size}"
            )
        if end > self._written:
            self._written = self._measure()
            if end > self._written:
                raise WireError(
                    f"reference to bytes up to {end} of the shared memory: only {self._written} have been written"
                )
        return self._view[reference.offset : end]

    def is_open(self) -> bool:
        """Return whether the client still has the memory; not where the client has ended."""
        try:
            found = self._path.stat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    def _check(self, size: int) -> None:
        if size != self.share.size:
            raise NotTaken(f"{size} bytes, {self.share.size} were announced")
        if os.fstatvfs(self._descriptor).f_bsize != mmap.PAGESIZE:
            raise NotTaken("it has huge pages of their own, of which nothing tells which were written")
        if fcntl.fcntl(self._descriptor, fcntl.F_GET_SEALS) & SEALS != SEALS:
            raise NotTaken("it is not sealed against shrinking and holes")
        if os.pread(self._descriptor, TOKEN_BYTES, 0) != self.share.token:
            raise NotTaken("it does not begin with the token: process ids mean something else there")

    def _measure(self) -> int:
        """Return how many bytes from the beginning have been written.

        Reading a page that was never written would allocate it, at this process's cost.
        """
        return os.lseek(self._descriptor, 0, os.SEEK_HOLE)


def _open(path: Path) -> int:
    """Open a client's memory for reading and return the descriptor.

    Raises:
        NotTaken: the client's descriptor is something else, or belongs to another user.
        OSError: it cannot be opened.
    """
    # A path descriptor can be looked at without side effects, whatever a client may have opened.
    looked_at = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        name, found = str(Path(f"/proc/self/fd/{looked_at}").readlink()), os.fstat(looked_at)
        if not name.startswith(f"/memfd:{NAME}") or not stat.S_ISREG(found.st_mode):
            raise NotTaken(f"{path} is {name}")
        if found.st_uid != os.geteuid():
            raise NotTaken(f"it belongs to user {found.st_uid}, this server to {os.geteuid()}")
        return os.open(f"/proc/self/fd/{looked_at}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    finally:
        os.close(looked_at)
