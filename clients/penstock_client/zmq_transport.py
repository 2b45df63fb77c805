"""Connections over ZeroMQ: DEALER sockets, encrypted with CURVE."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import zmq

from penstock_client.connect_file import ConnectInfo
from penstock_client.errors import ConnectError
from penstock_client.transport import Connection, Frame

COPY_BELOW = 64 * 1024  # bytes; for larger frames, passing the memory to ZeroMQ is cheaper than another copy
LINGER_MS = 5000
UNACKNOWLEDGED_MS = 60_000
# Lost connections are detected by TCP's time-outs and, on control connections, by ZeroMQ's heartbeats. Data connections
# have no heartbeats: they would fail while a trainer rank leaves messages unread. TCP sends no keepalive while bytes are
# unacknowledged, and by itself gives up after 15 minutes then. Interruptions shorter than the time-outs do no harm.
KEEPALIVE = {
    zmq.TCP_KEEPALIVE: 1,
    zmq.TCP_KEEPALIVE_IDLE: 30,
    zmq.TCP_KEEPALIVE_INTVL: 10,
    zmq.TCP_KEEPALIVE_CNT: 3,
    zmq.TCP_MAXRT: UNACKNOWLEDGED_MS,
}
HEARTBEATS = {zmq.HEARTBEAT_IVL: 10_000, zmq.HEARTBEAT_TIMEOUT: 60_000, zmq.HEARTBEAT_TTL: 60_000}
RECONNECT_MS, RECONNECT_MAX_MS = 100, 2000


class ZmqConnection:
    """A connection over one DEALER socket.

    Args:
        socket: the connected socket; this object closes it.
    """

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket

    def send(self, frames: Sequence[Frame]) -> None:
        """Send one multipart message; see `Connection.send`."""
        # The solver may overwrite its array as soon as send returns, so each array is copied once, into memory that
        # ZeroMQ keeps until the message has been sent.
        owned = [f.tobytes() if isinstance(f, np.ndarray) else f for f in frames]
        large = any(len(f) >= COPY_BELOW for f in owned)
        self._socket.send_multipart(owned, copy=not large)

    def receive(self, timeout: float) -> list[bytes] | None:
        """Wait for the next message; see `Connection.receive`."""
        if self._socket.poll(max(0, int(timeout * 1000))):
            return self._socket.recv_multipart()
        return None

    def close(self, *, deliver: bool = True) -> None:
        """Close the socket; see `Connection.close`."""
        self._socket.close(linger=LINGER_MS if deliver else 0)


class ZmqTransport:
    """Connects to one server with the keys of its connect.json.

    Args:
        info: content of connect.json.
    """

    def __init__(self, info: ConnectInfo) -> None:
        self._info = info
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()

    def connect(self, endpoint: str, *, control: bool = False) -> Connection:
        """Connect to a socket of the server; see `Transport.connect`.

        Raises:
            ConnectError: the endpoint or the keys are invalid.
        """
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.SNDHWM, 0)  # credit, not a number of messages, bounds what is in transit
        socket.setsockopt(zmq.RCVHWM, 0)
        for option, value in (KEEPALIVE | HEARTBEATS if control else KEEPALIVE).items():
            socket.setsockopt(option, value)
        socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
        try:
            socket.setsockopt(zmq.CURVE_SERVERKEY, self._info.server_public_key.encode())
            socket.setsockopt(zmq.CURVE_PUBLICKEY, self._info.client_public_key.encode())
            socket.setsockopt(zmq.CURVE_SECRETKEY, self._info.client_secret_key.encode())
            socket.connect(endpoint)
        except (zmq.ZMQError, ValueError) as error:  # ValueError: an unpaired surrogate, which JSON allows
            socket.close(linger=0)
            raise ConnectError(f"cannot connect to {endpoint!r}: {error}; is connect.json the current one?") from error
        return ZmqConnection(socket)

    def close(self, *, deliver: bool = True) -> None:
        """Close all connections; see `Connection.close`."""
        self._context.destroy(linger=LINGER_MS if deliver else 0)
