"""Trainer ranks send each other rows of numbers over their own TCP connections. Rank 0 passes them on.

A vote takes about 40 µs on loopback this way, and about 1 ms over gloo, which hands each message from thread to thread.
"""

from __future__ import annotations

import json
import secrets
import socket
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_KEY = "penstock/exchange"  # in the store
_HELLO = struct.Struct("<16sI")  # token and rank
_JOIN_SECONDS = 60.0  # for all ranks to connect, once torch.distributed has brought them together
_HELLO_SECONDS = 5.0


class Exchange:
    """The connections of one rank.

    Args:
        rank: number of this rank, from 0.
        size: number of ranks.
        store: of torch.distributed; tells the other ranks where rank 0 listens.
        host: address by which the other ranks reach this one.

    Raises:
        OSError: when another rank left or died meanwhile.
    """

    def __init__(self, rank: int, size: int, store: Any, host: str) -> None:
        self._rank, self._size = rank, size
        self._others = _accept(size, store, host) if rank == 0 else [_connect(rank, store)]
        for other in self._others:
            other.settimeout(None)
            other.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def rows(self, row: Floats) -> Floats:
        """Collect a row of numbers from each rank.

        Args:
            row: shape (n,) with n > 0, float64; as long on each rank.

        Returns:
            The rows of all ranks, in their order, shape (ranks, n).

        Raises:
            OSError: when another rank left or died.
        """
        rows = np.empty((self._size, len(row)))
        if self._rank == 0:
            rows[0] = row
            for number, other in enumerate(self._others, 1):
                _receive(other, rows[number].data)
            for other in self._others:
                other.sendall(rows.tobytes())
        else:
            self._others[0].sendall(row.tobytes())
            _receive(self._others[0], rows.data)
        return rows

    def close(self) -> None:
        """Close the connections; ranks that wait for this one then raise. May be called again."""
        for other in self._others:
            other.close()


def _accept(size: int, store: Any, host: str) -> list[socket.socket]:
    """Return the connections of rank 0 to the ranks from 1 on, in their order."""
    token = secrets.token_bytes(16)
    connections: dict[int, socket.socket] = {}
    with socket.create_server((host, 0), backlog=size) as listening:
        listening.settimeout(_JOIN_SECONDS)
        store.set(_KEY, json.dumps([*listening.getsockname(), token.hex()]))
        while len(connections) < size - 1:
            connection, _ = listening.accept()
            connection.settimeout(_HELLO_SECONDS)
            hello = bytearray(_HELLO.size)
            try:
                _receive(connection, memoryview(hello))
            except OSError:
                connection.close()
                continue
            said, rank = _HELLO.unpack(hello)
            if secrets.compare_digest(said, token) and 0 < rank < size and rank not in connections:
                connections[rank] = connection
            else:
                connection.close()  # a stranger
    return [connections[rank] for rank in range(1, size)]


def _connect(rank: int, store: Any) -> socket.socket:
    """Return the connection of another rank to rank 0."""
    host, port, token = json.loads(store.get(_KEY))
    connection = socket.create_connection((host, port), timeout=_JOIN_SECONDS)
    connection.sendall(_HELLO.pack(bytes.fromhex(token), rank))
    return connection


def _receive(connection: socket.socket, into: memoryview) -> None:
    """Fill memory with what comes next."""
    left = into.cast("B")
    while left:
        got = connection.recv_into(left)
        if not got:
            raise ConnectionError("connection closed")
        left = left[got:]
