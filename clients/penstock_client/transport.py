"""Interface between the client and its connections: ZeroMQ sockets, or plain calls in the inline engine and tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from numpy.typing import NDArray

Frame = bytes | memoryview | NDArray  # type: ignore[type-arg]


class Connection(Protocol):
    """A two-way, ordered message connection to one socket of the server. One thread uses it."""

    def send(self, frames: Sequence[Frame]) -> None:
        """Send one multipart message.

        Args:
            frames: parts of the message; they are not modified. Arrays may be overwritten after the call, a memoryview
                must not be.
        """

    def receive(self, timeout: float) -> list[bytes] | None:
        """Wait for the next message.

        Args:
            timeout: seconds to wait.

        Returns:
            The frames of the message, or None if none has arrived in time.
        """

    def close(self, *, deliver: bool = True) -> None:
        """Close the connection.

        Args:
            deliver: whether to try to deliver the messages that have been sent.
        """


class Transport(Protocol):
    """Makes connections to the sockets of one server."""

    def connect(self, endpoint: str, *, control: bool = False) -> Connection:
        """Connect to a socket of the server.

        Args:
            endpoint: address of the socket.
            control: True for the coordinator, which reads messages without delay.

        Returns:
            The connection.
        """

    def close(self, *, deliver: bool = True) -> None:
        """Close all connections of this transport; see `Connection.close`."""
