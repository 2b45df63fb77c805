"""Connections over ZeroMQ: DEALER sockets with CURVE."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import zmq

from penstock_client.connect_file import ConnectInfo
from penstock_client.errors import ConnectError
from penstock_client.transport import Connection, Frame

COPY_BELOW = 64 * 1024  # bytes; above, handing ZeroMQ the memory itself is cheaper than a copy
LINGER_MS = 5000
# Who is cut off is noticed by TCP, and on control connections, whose messages are dealt with at once, by ZeroMQ's own heartbeats:
# on a data connection they would fail while a trainer rank leaves messages unread. Shorter interruptions cost nothing.
KEEPALIVE = {zmq.TCP_KEEPALIVE: 1, zmq.TCP_KEEPALIVE_IDLE: 30, zmq.TCP_KEEPALIVE_INTVL: 10, zmq.TCP_KEEPALIVE_CNT: 3}
HEARTBEATS = {zmq.HEARTBEAT_IVL: 10_000, zmq.HEARTBEAT_TIMEOUT: 60_000, zmq.HEARTBEAT_TTL: 60_000}
RECONNECT_MS, RECONNECT_MAX_MS = 100, 2000


class ZmqConnection:
    """One DEALER socket."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket

    def send(self, frames: Sequence[Frame]) -> None:
        # The solver may overwrite its array as soon as send returns, so large frames are copied by us, once, into
        # memory that ZeroMQ then owns until it has been sent.
        owned = [f.tobytes() if isinstance(f, np.ndarray) else f for f in frames]
        large = any(len(f) >= COPY_BELOW for f in owned)
        self._socket.send_multipart(owned, copy=not large)

    def receive(self, timeout: float) -> list[bytes] | None:
        if self._socket.poll(max(0, int(timeout * 1000))):
            return self._socket.recv_multipart()
        return None

    def close(self, *, deliver: bool = True) -> None:
        self._socket.close(linger=LINGER_MS if deliver else 0)


class ZmqTransport:
    """DEALER connections to one server, with the keys of its connect.json."""

    def __init__(self, info: ConnectInfo) -> None:
        self._info = info
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()

    def connect(self, endpoint: str, *, control: bool = False) -> Connection:
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.SNDHWM, 0)  # credit bounds what is on the way, not message counts
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
        except (zmq.ZMQError, ValueError) as error:  # ValueError: half a character, which JSON can hold
            socket.close(linger=0)
            raise ConnectError(f"cannot connect to {endpoint!r}: {error}; is connect.json the current one?") from error
        return ZmqConnection(socket)

    def close(self, *, deliver: bool = True) -> None:
        self._context.destroy(linger=LINGER_MS if deliver else 0)
