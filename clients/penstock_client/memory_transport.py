"""Connections by plain function calls instead of sockets, for the inline engine and for tests."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from penstock_client.errors import ConnectError, WireError
from penstock_client.transport import Connection, Frame

Handler = Callable[[bytes, list[bytes]], list[list[bytes]]]
"""Handles one message to a server socket: (peer, frames) -> replies to that peer."""


class MemoryConnection:
    """Passes each message to a handler at once and queues its replies.

    Args:
        peer: name of this connection for the handler.
        handler: handles each message.
    """

    def __init__(self, peer: bytes, handler: Handler) -> None:
        self._peer = peer
        self._handler = handler
        self._replies: deque[list[bytes]] = deque()

    def send(self, frames: Sequence[Frame]) -> None:
        """Let the handler process a message."""
        raw = [f if isinstance(f, bytes) else f.tobytes() for f in frames]
        self._replies.extend(self._handler(self._peer, raw))

    def receive(self, timeout: float) -> list[bytes] | None:
        """Return the next reply, or None.

        Raises:
            WireError: there is no reply and `timeout` is above 0, so that the caller would wait for ever.
        """
        if not self._replies and timeout > 0:  # nothing more can arrive by waiting
            raise WireError("waiting for a message that the handler has not sent")
        return self._replies.popleft() if self._replies else None

    def close(self, *, deliver: bool = True) -> None:  # noqa: ARG002 - a Connection
        """Drop all replies."""
        self._replies.clear()


class MemoryTransport:
    """Connects to handlers by endpoint name.

    Args:
        handlers: endpoint name to handler.
    """

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers
        self._made = 0

    def connect(self, endpoint: str, *, control: bool = False) -> Connection:  # noqa: ARG002 - a Transport
        """Connect to the handler of an endpoint; see `Transport.connect`.

        Raises:
            ConnectError: the endpoint has no handler.
        """
        if endpoint not in self._handlers:
            raise ConnectError(f"no handler for {endpoint!r}, only for {', '.join(self._handlers)}")
        self._made += 1
        return MemoryConnection(f"memory-{self._made}".encode(), self._handlers[endpoint])

    def close(self, *, deliver: bool = True) -> None:
        """Do nothing: there is nothing to close."""
