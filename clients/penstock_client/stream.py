"""One data connection to one trainer rank: credit, coalescing of small pieces, and what the rank answers."""

from __future__ import annotations

import time
from collections.abc import Callable

from numpy.typing import NDArray

from penstock_client.errors import Refused, WireError
from penstock_client.payloads import Begin, Refuse, Streamed, Welcome
from penstock_client.transport import Connection, Frame
from penstock_client.wire import Header, Kind, unpack

WAIT = 0.5  # seconds between two looks at the heartbeat while waiting for the rank


class Stream:
    """Pieces of one simulation on their way to one trainer rank.

    `check` is called while waiting and raises when waiting has become pointless (server lost, simulation abandoned).
    `blocked_seconds` is the time spent waiting for credit.
    """

    def __init__(self, connection: Connection, welcome: Welcome, check: Callable[[], None]) -> None:
        self._connection = connection
        self._window = welcome.credit_bytes
        self._coalesce_bytes = welcome.coalesce_bytes
        self._coalesce_seconds = welcome.coalesce_ms / 1000
        self._check = check
        self._sent = 0  # payload bytes, since the connection was made
        self._limit = 0  # cumulative payload bytes that may be sent; granted by CREDIT
        self._pending: list[Frame] = []
        self._pending_bytes = 0
        self._last_step = 0.0
        self._refusal: Refused | None = None
        self._streamed: Streamed | None = None
        self.blocked_seconds = 0.0

    def begin(self, header: Header, begin: Begin) -> None:
        """Open a simulation's stream. Raises Refused where the rank does not want it."""
        self.flush()  # what a simulation that failed has left waiting still belongs before this one's BEGIN
        self._refusal, self._streamed = None, None
        self._connection.send([header.pack(), begin.pack()])

    def send(self, header: Header, array: NDArray) -> None:  # type: ignore[type-arg]
        """Send one piece, waiting for credit first; small pieces may travel together with later ones."""
        if array.nbytes and not self.may_send(array.nbytes):
            self.flush()
            self._wait_for_credit(array.nbytes)
        self._sent += array.nbytes
        small = array.nbytes <= self._coalesce_bytes
        # An array that waits for company is copied: its owner goes on computing in it.
        self._pending += [header.pack(), array.tobytes() if small else array]
        self._pending_bytes += array.nbytes
        if not small or self._pending_bytes >= self._coalesce_bytes:
            self.flush()

    def describe(self, header: Header, indices: NDArray) -> None:  # type: ignore[type-arg]
        """Send the list of the points of which a field's pieces will consist; needs no credit."""
        self._connection.send([header.pack(), indices])

    def step_sent(self) -> None:
        """All pieces of a time step have been handed over: what is small waits for the next one only where time steps
        follow each other within the coalescing time. Raises Refused when the rank has refused a piece meanwhile."""
        now = time.monotonic()
        slow, self._last_step = now - self._last_step > self._coalesce_seconds, now
        if slow:
            self.flush()
        self._listen(0)
        if self._refusal is not None:
            raise self._refusal

    def flush(self) -> None:
        """Send what has been waiting for company."""
        if self._pending:
            frames, self._pending, self._pending_bytes = self._pending, [], 0
            self._connection.send(frames)

    def request_end(self, header: Header) -> None:
        """Say that this simulation's pieces are all sent."""
        self.flush()
        self._connection.send([header.pack()])

    def await_end(self) -> Streamed:
        """Wait until the rank has dealt with every piece. Raises Refused when it took one or more of them amiss."""
        while self._streamed is None:
            self._listen(WAIT)
            self._check()
        if self._refusal is not None:
            raise self._refusal
        return self._streamed

    def close(self) -> None:
        self._connection.close()

    def may_send(self, size: int) -> bool:
        """Whether credit is there for so many bytes."""
        # The second case lets a piece larger than the whole window through once nothing else is on the way.
        return self._sent + size <= self._limit or (self._limit > 0 and self._sent + self._window <= self._limit)

    def _wait_for_credit(self, size: int) -> None:
        begun = time.monotonic()
        self._listen(0)
        while not self.may_send(size):
            self._listen(WAIT)
            self._check()
            if self._refusal is not None:
                raise self._refusal
        self.blocked_seconds += time.monotonic() - begun

    def _listen(self, timeout: float) -> None:
        while (frames := self._connection.receive(timeout)) is not None:
            timeout = 0
            header = unpack(frames[0])
            if header.kind is Kind.CREDIT:
                self._limit = max(self._limit, header.count)
            elif header.kind is Kind.STREAMED:
                self._streamed = Streamed.unpack(frames[1])
            elif header.kind is Kind.REFUSE:
                refuse = Refuse.unpack(frames[1])
                self._refusal = Refused(refuse.reason, refuse.text)
            else:
                raise WireError(f"{header.kind.name} on a data connection")
