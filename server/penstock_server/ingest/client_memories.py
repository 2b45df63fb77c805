"""The memory of all clients that a trainer rank reads payloads from: taken when offered, given back when they have gone."""

from __future__ import annotations

import logging
from weakref import WeakValueDictionary

from penstock_client.errors import Refused
from penstock_client.reasons import Reason
from penstock_client.stream_payloads import Reference, Share
from penstock_client.wire import MAX_PIECE_BYTES
from penstock_server.ingest.client_memory import ClientMemory, NotTaken
from penstock_server.ingest.data_connection import DataConnection
from penstock_server.telemetry import Metrics

MAX_FOR_A_KEY = 512  # memories that the clients of one key may have mapped here; each takes two file descriptors
MOST_LOGGED = 100  # offers that are not taken and leave a line in the log

_log = logging.getLogger("penstock.ingest")


class ClientMemories:
    """Takes and gives back the memory of clients. It belongs to the thread that handles messages.

    Args:
        enabled: whether any memory is taken.
        credit: bytes that a client may have under way.
        metrics: counts the connections with memory.
    """

    def __init__(self, *, enabled: bool, credit: int, metrics: Metrics) -> None:
        self._enabled, self._metrics = enabled, metrics
        self._logged = 0
        self._largest = credit + 2 * MAX_PIECE_BYTES
        # By routing id. A connection that the streams forget takes its memory with it.
        self._connections: WeakValueDictionary[bytes, DataConnection] = WeakValueDictionary()

    def take(self, connection: DataConnection, share: Share) -> bool:
        """Map the memory that a client offers for a connection; it replaces what the connection had before.

        Args:
            connection: over which SHARE came.
            share: its payload.

        Returns:
            Whether payloads may be there.
        """
        known, connection.memory = connection.memory, None
        if known is not None and known.share == share:
            connection.memory = known
            return True
        try:
            self._check(connection)
            connection.memory = ClientMemory(share, self._largest)
        except NotTaken as why:
            if self._logged < MOST_LOGGED:
                self._logged += 1
                # As text: the exception would keep the memory, which a handler of the log may keep in turn.
                _log.debug("shared memory of a client with key %r is not used: %s", connection.worker, str(why))
            return False
        self._connections[connection.peer] = connection
        self._metrics.shared_memory_connections.inc()
        return True

    def read(self, connection: DataConnection, frame: bytes) -> memoryview:
        """Return the payload that a message refers to.

        Args:
            connection: over which the message came.
            frame: its payload frame, a reference.

        Raises:
            Refused: the connection has no memory, as after a silent reconnect.
            WireError: the reference does not name bytes that were written.
        """
        reference = Reference.unpack(frame)
        if connection.memory is None:
            raise Refused(Reason.NO_BEGIN, "a reference to shared memory over a connection that has none")
        return connection.memory.read(reference)

    def give_back(self) -> None:
        """Give back the memory of clients that have gone, except where messages were dealt with since the last call."""
        for connection in list(self._connections.values()):
            memory = connection.memory
            if memory is None:
                continue
            if not memory.used and not memory.is_open():
                connection.memory = None
            else:
                memory.used = False

    def _check(self, connection: DataConnection) -> None:
        if not self._enabled:
            raise NotTaken("[server] shared_memory is false")
        held = sum(c.memory is not None and c.worker == connection.worker for c in self._connections.values())
        if held >= MAX_FOR_A_KEY:
            raise NotTaken(f"the clients of this key have {held} already")
