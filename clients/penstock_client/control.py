"""The control connection: HELLO, then one numbered request at a time, repeated until it is answered.

When TCP breaks, ZeroMQ reconnects by itself, as a new peer of the server, and a request or an answer in transit is
lost. The server recognises a repeated request by its number and repeats its answer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from penstock_client.errors import ConnectError, Refused, WireError
from penstock_client.payloads import Hello, Refuse, Welcome
from penstock_client.reasons import Reason
from penstock_client.transport import Connection
from penstock_client.wire import Header, Kind, unpack

WAIT = 0.5  # seconds between two checks of the heartbeat while waiting for the server
REPEAT = 4.0  # seconds after which an unanswered request is repeated
HELLO_NUMBER = 0
MOST_HELLOS = 20  # in one request: the server forgets a client once for each connection that breaks
PAUSE = 0.2  # seconds between two of them


class Control:
    """Sends requests to the coordinator. Not thread-safe: one thread uses it.

    Args:
        connection: the connection to the coordinator.
        header: header of every message: incarnation and MPI rank.
        hello: payload of HELLO, which identifies this client.
    """

    def __init__(self, connection: Connection, header: Header, hello: Hello) -> None:
        self._connection = connection
        self._hello = [header._replace(kind=Kind.HELLO, offset=HELLO_NUMBER).pack(), hello.pack()]
        self._number = HELLO_NUMBER

    def hello(self, endpoint: str, timeout: float, check: Callable[[], None]) -> Welcome:
        """Introduce this client to the server.

        Args:
            endpoint: the coordinator's endpoint, for the error message.
            timeout: seconds to wait for the answer.
            check: called while waiting; raises an error when waiting has become pointless.

        Returns:
            The server's answer.

        Raises:
            ConnectError: no answer within `timeout` seconds.
            Refused: the server refuses this client.
        """
        deadline = time.monotonic() + timeout

        def check_time() -> None:
            check()
            if time.monotonic() > deadline:
                raise ConnectError(
                    f"no answer from {endpoint} within {timeout:.0f} s: is the study running, and is its connect.json "
                    "the current one (address and keys)?"
                )

        header, payload = self._until_answered(self._hello, HELLO_NUMBER, check_time, min(WAIT, timeout))
        if header.kind is not Kind.WELCOME:
            raise WireError(f"{header.kind.name} in answer to HELLO")
        welcome = Welcome.unpack(payload)
        if not welcome.rank_endpoints:
            raise WireError("WELCOME names no trainer rank")
        return welcome

    def ask(self, header: Header, payload: bytes, check: Callable[[], None]) -> tuple[Header, bytes]:
        """Send a request and wait for its answer.

        Args:
            header: header of the request; the request number is added.
            payload: payload of the request.
            check: called while waiting; raises an error when waiting has become pointless.

        Returns:
            Header and payload of the answer.

        Raises:
            Refused: the server refuses the request.
        """
        self._number += 1
        return self._until_answered(
            [header.with_request_number(self._number).pack(), payload], self._number, check, WAIT
        )

    def close(self, *, deliver: bool) -> None:
        """Close the connection; see `Connection.close`."""
        self._connection.close(deliver=deliver)

    def _until_answered(
        self, request: list[bytes], number: int, check: Callable[[], None], wait: float
    ) -> tuple[Header, bytes]:
        repeat_at, hellos = -math.inf, 0
        while True:
            if time.monotonic() >= repeat_at:
                self._connection.send(request)
                repeat_at = time.monotonic() + REPEAT
            frames = self._connection.receive(wait if not hellos else PAUSE)
            if frames is None:
                check()
                continue
            if len(frames) != 2:
                raise WireError(f"control message of {len(frames)} frames, expected 2")
            header = unpack(frames[0])
            if header.kind is Kind.REFUSE and header.request_number in (number, HELLO_NUMBER):
                refuse = Refuse.unpack(frames[1])
                hellos += 1
                if refuse.reason is not Reason.NO_HELLO or hellos > MOST_HELLOS:
                    raise Refused(refuse.reason, refuse.text)
                self._connection.send(self._hello)  # ZeroMQ has reconnected: this connection needs HELLO first
                repeat_at = -math.inf if hellos == 1 else time.monotonic() + PAUSE
                check()
            elif header.request_number == number:
                return header, frames[1]
            # Anything else is a second answer to a repeated request.
