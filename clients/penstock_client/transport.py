"""The seam between the client and its carrier: ZeroMQ for real studies, direct calls for the inline engine and tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from numpy.typing import NDArray

Frame = bytes | memoryview | NDArray  # type: ignore[type-arg]


class Connection(Protocol):
    """One two-way, ordered message connection to one socket of the server. Used from one thread."""

    def send(self, frames: Sequence[Frame]) -> None:
        """Send one multipart message; frames are not modified, and may be reused on return."""

    def receive(self, timeout: float) -> list[bytes] | None:
        """The next message, or None when `timeout` seconds have passed without one."""

    def close(self, *, deliver: bool = True) -> None:
        """Give the connection back. deliver: what is already sent is still delivered where possible."""


class Transport(Protocol):
    """Makes connections."""

    def connect(self, endpoint: str, *, control: bool = False) -> Connection:
        """A connection to a server socket. control: to the coordinator, which reads at once."""

    def close(self, *, deliver: bool = True) -> None:
        """Close everything this transport made; see `Connection.close`."""
