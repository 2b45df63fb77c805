"""Connections that are plain calls: the same client code without sockets, for the inline engine and for tests."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from penstock_client.errors import ConnectError, WireError
from penstock_client.transport import Connection, Frame

Handler = Callable[[bytes, list[bytes]], list[list[bytes]]]
"""What a server socket does with one message: (peer, frames) -> replies to that peer."""


class MemoryConnection:
    """Hands each message to a handler at once and keeps its replies."""

    def __init__(self, peer: bytes, handler: Handler) -> None:
        self._peer = peer
        self._handler = handler
        self._replies: deque[list[bytes]] = deque()

    def send(self, frames: Sequence[Frame]) -> None:
        raw = [f if isinstance(f, bytes) else f.tobytes() for f in frames]
        self._replies.extend(self._handler(self._peer, raw))

    def receive(self, timeout: float) -> list[bytes] | None:
        if not self._replies and timeout > 0:  # nothing more can arrive by waiting
            raise WireError("waiting for a message that the handler has not sent")
        return self._replies.popleft() if self._replies else None

    def close(self, *, deliver: bool = True) -> None:  # noqa: ARG002 - a Connection
        self._replies.clear()


class MemoryTransport:
    """Connections to handlers by endpoint name."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers
        self._made = 0

    def connect(self, endpoint: str, *, control: bool = False) -> Connection:  # noqa: ARG002 - a Transport
        if endpoint not in self._handlers:
            raise ConnectError(f"no handler for {endpoint!r}, only for {', '.join(self._handlers)}")
        self._made += 1
        return MemoryConnection(f"memory-{self._made}".encode(), self._handlers[endpoint])

    def close(self, *, deliver: bool = True) -> None:
        """Nothing to give back."""
