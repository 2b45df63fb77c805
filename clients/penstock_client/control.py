"""The control connection: HELLO, and one numbered request at a time, repeated until it is answered.

When TCP breaks, ZeroMQ makes the connection anew by itself, as another peer of the server, and what was on the way is lost: a
request, or its answer. The server recognises a repetition by its number and answers it as before.
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

WAIT = 0.5  # seconds between two looks at the heartbeat while waiting for the server
REPEAT = 4.0  # seconds after which a request without an answer is sent again
HELLO_NUMBER = 0


class Control:
    """Speaks to the coordinator; used from one thread.

    Args:
        connection: to the coordinator. hello: the header of HELLO, and who this is.
    """

    def __init__(self, connection: Connection, header: Header, hello: Hello) -> None:
        self._connection = connection
        self._hello = [header._replace(kind=Kind.HELLO, offset=HELLO_NUMBER).pack(), hello.pack()]
        self._number = HELLO_NUMBER

    def hello(self, endpoint: str, timeout: float, check: Callable[[], None]) -> Welcome:
        """Say who this is; `check` as for `ask`.

        Raises:
            ConnectError: no answer within `timeout` seconds. Refused: the server does not want this client.
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
        """Send a request and wait for its answer. `check` is called while waiting and raises when that has become pointless.

        Raises:
            Refused: the server refuses it.
        """
        self._number += 1
        return self._until_answered([header._replace(offset=self._number).pack(), payload], self._number, check, WAIT)

    def close(self, *, deliver: bool) -> None:
        self._connection.close(deliver=deliver)

    def _until_answered(
        self, request: list[bytes], number: int, check: Callable[[], None], wait: float
    ) -> tuple[Header, bytes]:
        again = -math.inf
        while True:
            if time.monotonic() >= again:
                self._connection.send(request)
                again = time.monotonic() + REPEAT
            frames = self._connection.receive(wait)
            if frames is None:
                check()
                continue
            if len(frames) != 2:
                raise WireError(f"control message of {len(frames)} frames, expected 2")
            header = unpack(frames[0])
            if header.kind is Kind.REFUSE and header.offset in (number, HELLO_NUMBER):
                refuse = Refuse.unpack(frames[1])
                if refuse.reason is not Reason.NO_HELLO:
                    raise Refused(refuse.reason, refuse.text)
                self._connection.send(self._hello)  # over the connection that has been made anew
                again = -math.inf
            elif header.offset == number:
                return header, frames[1]
            # Anything else is the second answer to a request that was sent twice.
