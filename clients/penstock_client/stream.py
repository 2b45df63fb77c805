"""One data connection to one trainer rank: credit, coalescing of small pieces, and what the rank answers."""

from __future__ import annotations

import time
from collections.abc import Callable

from numpy.typing import NDArray

from penstock_client.control import WAIT
from penstock_client.errors import ConnectionBroken, PenstockError, Refused, WireError
from penstock_client.payloads import Begin, Refuse, Streamed, Welcome
from penstock_client.reasons import Reason
from penstock_client.transport import Connection, Frame
from penstock_client.wire import Header, Kind, unpack

ASK, ASK_AT_MOST = (
    4.0,
    60.0,
)  # seconds of waiting for a rank after which it is asked (again), from the first to the longest


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
        self._stream = Header(Kind.BEGIN)  # of the simulation that is streamed
        self._pieces = 0  # of this simulation
        self._bytes = 0  # of them
        self._counted = False  # whether CREDIT for this simulation has come
        self._sent = 0  # payload bytes, since the connection was made
        self._limit = 0  # cumulative payload bytes that may be sent; granted by CREDIT
        self._pending: list[Frame] = []
        self._pending_bytes = 0
        self._last_step = 0.0
        self._refusal: PenstockError | None = None
        self._streamed: Streamed | None = None
        self.blocked_seconds = 0.0

    def begin(self, header: Header, begin: Begin) -> None:
        """Open a simulation's stream. Raises Refused where the rank does not want it."""
        self.flush()  # what a simulation that failed has left waiting still belongs before this one's BEGIN
        self._refusal, self._streamed = None, None
        self._stream, self._pieces, self._bytes, self._counted = header, 0, 0, False
        self._connection.send([header.pack(), begin.pack()])

    def send(self, header: Header, array: NDArray) -> None:  # type: ignore[type-arg]
        """Send one piece, waiting for credit first; small pieces may travel together with later ones."""
        if array.nbytes and not self.may_send(array.nbytes):
            self.flush()
            self._wait_for_credit(array.nbytes)
        self._sent += array.nbytes
        self._bytes += array.nbytes
        self._pieces += 1
        small = array.nbytes <= self._coalesce_bytes
        # An array that waits for company is copied: its owner goes on computing in it.
        self._pending += [header.pack(), array.tobytes() if small else array]
        self._pending_bytes += array.nbytes
        if not small or self._pending_bytes >= self._coalesce_bytes:
            self.flush()

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

    def request_end(self) -> None:
        """Say that this simulation's pieces are all sent."""
        self.flush()
        self._ask(Kind.END)

    def await_end(self) -> None:
        """Wait until the rank has dealt with every piece.

        Raises:
            Refused: it took one or more of them amiss. ConnectionBroken: one or more have not reached it.
        """
        self._wait_until(lambda: self._streamed is not None, Kind.END)
        if self._refusal is not None:
            raise self._refusal
        assert self._streamed is not None
        arrived = self._streamed.accepted + self._streamed.duplicates + self._streamed.refused
        if arrived != self._pieces:
            raise ConnectionBroken(f"{arrived} of {self._pieces} pieces have reached the trainer rank: {RUN_AGAIN}")

    def close(self, *, deliver: bool = True) -> None:
        self._connection.close(deliver=deliver)

    def may_send(self, size: int) -> bool:
        """Whether credit is there for so many bytes."""
        # The second case lets a piece larger than the whole window through once nothing else is on the way.
        return self._sent + size <= self._limit or (self._limit > 0 and self._sent + self._window <= self._limit)

    def _wait_for_credit(self, size: int) -> None:
        begun = time.monotonic()
        self._listen(0)
        if size > self._window // 8:
            # The rank grants more only when an eighth of the window has been used; this piece may need it before.
            self._ask(Kind.CREDIT)
        self._wait_until(lambda: self.may_send(size), Kind.CREDIT)
        self.blocked_seconds += time.monotonic() - begun

    def _wait_until(self, true: Callable[[], bool], question: Kind) -> None:
        """Wait for the rank. If the connection has been made anew meanwhile it owes us nothing that it knows of, so it is asked."""
        patience = ASK
        asked = time.monotonic()
        while not true():
            self._listen(WAIT)
            self._check()
            if self._refusal is not None:
                raise self._refusal
            if time.monotonic() - asked > patience:
                self._ask(question)
                asked, patience = time.monotonic(), min(2 * patience, ASK_AT_MOST)

    def _ask(self, kind: Kind) -> None:
        self._connection.send([self._stream._replace(kind=kind).pack()])

    def _listen(self, timeout: float) -> None:
        while (frames := self._connection.receive(timeout)) is not None:
            timeout = 0
            header, payload = unpack(frames[0]), b"".join(frames[1:2])  # which CREDIT does without
            ours = (header.simulation, header.attempt) == (self._stream.simulation, self._stream.attempt)
            if header.kind is Kind.CREDIT:
                self._take_credit(header.count, ours)
            elif header.kind is Kind.STREAMED:
                if ours:
                    self._streamed = Streamed.unpack(payload)
            elif header.kind is Kind.REFUSE:
                if ours or not header.attempt:  # without an attempt: of a message that the rank could not read
                    self._refusal = self._refusal or _refusal(Refuse.unpack(payload))
            else:
                raise WireError(f"{header.kind.name} on a data connection")

    def _take_credit(self, count: int, ours: bool) -> None:
        if ours and not self._counted:
            # The rank counts from the beginning of the connection, which may have been made anew since the last simulation. Its
            # answer to BEGIN tells where it stands: everything before BEGIN had been dealt with.
            self._counted = True
            self._sent = count - self._window + self._bytes
            self._limit = count
        else:
            self._limit = max(self._limit, count)


RUN_AGAIN = "the connection has broken, and what was on the way is lost; the simulation must be run again"


def _refusal(refuse: Refuse) -> PenstockError:
    if refuse.reason is Reason.NO_BEGIN:  # BEGIN is the first of what is sent: the rank sees another connection
        return ConnectionBroken(f"the trainer rank does not know this stream ({refuse.text}): {RUN_AGAIN}")
    return Refused(refuse.reason, refuse.text)
