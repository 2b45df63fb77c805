"""One data connection to one trainer rank: credit, coalescing of small pieces, the rank's answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from numpy.typing import NDArray

from penstock_client.block import BLOCK, SHARED_BLOCK, TIME_BYTES, Array, HeldRows
from penstock_client.control import WAIT
from penstock_client.errors import ConnectionBroken, PenstockError, Refused, WireError
from penstock_client.payloads import Refuse, Welcome
from penstock_client.reasons import Reason
from penstock_client.shared_memory import SMALLEST, SharedMemory
from penstock_client.stream_payloads import Begin, Streamed
from penstock_client.transport import Connection, Frame
from penstock_client.wire import Header, Kind, unpack

FIRST_REPEAT = 4.0  # seconds without an answer of the rank after which a question is repeated for the first time
LONGEST_REPEAT = 60.0  # seconds; the interval doubles up to this
HELD_STEPS = 8  # time steps of which pieces are held back at most where solver ranks share time steps


class Stream:
    """Sends the pieces of one simulation after another to one trainer rank.

    Args:
        connection: data connection to the rank.
        welcome: settings of the study.
        check: called while waiting; raises an error when waiting has become pointless (server lost, simulation
            abandoned).
        share_memory: whether to offer memory to the rank, which it can read where both run on the same node.

    Attributes:
        blocked_seconds: seconds spent waiting for credit.
    """

    def __init__(
        self, connection: Connection, welcome: Welcome, check: Callable[[], None], *, share_memory: bool = False
    ) -> None:
        self._connection = connection
        self._window = welcome.credit_bytes
        self._coalesce_bytes = welcome.coalesce_bytes
        self._coalesce_seconds = welcome.coalesce_ms / 1000
        self._check = check
        self._stream = Header(Kind.BEGIN)  # BEGIN header of the current simulation
        self._pieces = self._bytes = 0  # of the current simulation: pieces, and their payload bytes
        self._has_credit = False  # whether CREDIT for the current simulation has arrived
        self._sent = 0  # payload bytes since the connection was established
        self._limit = 0  # cumulative payload bytes that may be sent; granted by CREDIT
        self._pending: list[Frame] = []
        self._pending_bytes = 0
        self._rows = HeldRows()  # whole time steps that are held back
        self._pending_since = 0.0  # when the oldest pending piece was put there
        self._pending_steps = 0  # time steps completed since then
        self._shared = False  # whether several solver ranks send parts of the same time steps
        self._last_step = 0.0
        self._unheard = False  # whether something has been sent since answers were looked for
        self._refusal: PenstockError | None = None
        self._streamed: Streamed | None = None
        self._memory: SharedMemory | None = None
        self._offers = share_memory  # False once the rank has not taken the memory
        self._takes = False  # whether the rank reads the memory
        self._settled = True  # whether the rank has dealt with all pieces of the simulation before
        self.blocked_seconds = 0.0

    def begin(self, header: Header, begin: Begin) -> None:
        """Open the stream of a simulation.

        Args:
            header: header of BEGIN.
            begin: payload of BEGIN.
        """
        self.flush()  # pieces that a failed simulation has left pending must precede this BEGIN
        self._offer_memory(header)
        self._refusal, self._streamed = None, None
        self._stream, self._pieces, self._bytes, self._has_credit = header, 0, 0, False
        self._shared = begin.ranks > 1
        self._connection.send([header.pack(), begin.pack()])

    def send_step(self, step: int, time_of_step: float, row: Sequence[Array], size: int) -> None:
        """Wait for credit, then send a whole time step. Small ones are held back and sent together.

        Args:
            step: number of the time step.
            time_of_step: its physical time; NaN where there is none.
            row: its arrays in the order of a row, C-contiguous and little-endian; may be overwritten after the call.
            size: bytes of the row.

        Raises:
            Refused: the rank has refused a piece of this simulation.
            ConnectionBroken: the connection broke.
        """
        if self._sent + size + TIME_BYTES > self._limit and not self.may_send(size + TIME_BYTES):
            self.flush()
            self._wait_for_credit(size + TIME_BYTES)
        rows = self._rows
        if rows.number and not rows.follows(step):
            self.flush()
        if not rows.number:
            room = self._room_for_rows(size)
            if room is None:
                self.flush()
                self._count(size)
                payload = row[0] if len(row) == 1 else b"".join(array.data.cast("B") for array in row)
                self._send_block(step, 1, 1, time_of_step, payload)
                return
            rows.begin(room, size)
            self._pending_since = time.monotonic()
        self._count(size + TIME_BYTES if rows.number else size)
        rows.add(step, time_of_step, row)
        if rows.full:
            self.flush()

    def send(self, header: Header, array: NDArray) -> None:  # type: ignore[type-arg]
        """Wait for credit, then send one piece. Small pieces are held back and sent together.

        Args:
            header: header of the piece.
            array: its elements, C-contiguous and little-endian; may be overwritten after the call.

        Raises:
            Refused: the rank has refused a piece of this simulation.
            ConnectionBroken: the connection broke.
        """
        if array.nbytes and not self.may_send(array.nbytes):
            self.flush()
            self._wait_for_credit(array.nbytes)
        self._count(array.nbytes)
        self._pieces += 1
        small = array.nbytes <= self._coalesce_bytes
        if not self._pending:
            self._pending_since = time.monotonic()
        self._flush_rows()
        if self._takes and self._memory is not None and (placed := self._memory.place(array, self._bytes)) is not None:
            self._pending += [header.pack(reference=True), placed]
        else:
            # A piece that is held back is copied, because the solver goes on computing in its array.
            self._pending += [header.pack(), array.tobytes() if small else array]
        self._pending_bytes += array.nbytes
        if not small or self._pending_bytes >= self._coalesce_bytes:
            self.flush()

    def describe(self, header: Header, indices: NDArray) -> None:  # type: ignore[type-arg]
        """Send the list of points that a field's pieces will consist of. This needs no credit.

        Args:
            header: header of INDICES.
            indices: the points, (n,).
        """
        self._connection.send([header.pack(), indices])

    def step_sent(self) -> None:
        """Mark a time step as complete.

        Small pieces are held back only while time steps follow each other within `coalesce_ms`, and for no longer than
        that.

        Raises:
            Refused: the rank has refused a piece of this simulation.
            ConnectionBroken: the connection broke.
        """
        now = time.monotonic()
        slow, self._last_step = now - self._last_step > self._coalesce_seconds, now
        self._pending_steps += 1
        old = self._holds() and now - self._pending_since >= self._coalesce_seconds
        # The server bounds the unfinished time steps of a simulation, so a rank must not hold back its part of many.
        if slow or old or (self._shared and self._pending_steps >= HELD_STEPS):
            self.flush()
        if self._unheard:  # answers come only to what has been sent
            self._unheard = False
            self._listen(0)
        if self._refusal is not None:
            raise self._refusal

    def flush(self) -> None:
        """Send the pieces that are held back."""
        self._pending_steps = 0
        self._flush_rows()
        if self._pending:
            frames, self._pending, self._pending_bytes = self._pending, [], 0
            self._connection.send(frames)
            self._unheard = True

    def flush_old(self) -> None:
        """Send the pieces that are held back if the oldest has waited for `coalesce_ms`."""
        if self._holds() and time.monotonic() - self._pending_since >= self._coalesce_seconds:
            self.flush()

    def request_end(self) -> None:
        """Tell the rank that all pieces of this simulation have been sent."""
        self.flush()
        self._ask(Kind.END)

    def await_end(self) -> None:
        """Wait until the rank has processed every piece.

        Raises:
            Refused: the rank has refused one or more pieces.
            ConnectionBroken: one or more pieces have not arrived.
        """
        self._wait_until(lambda: self._streamed is not None, Kind.END)
        if self._refusal is not None:
            raise self._refusal
        assert self._streamed is not None
        arrived = self._streamed.accepted + self._streamed.duplicates + self._streamed.refused
        if arrived != self._pieces:
            raise ConnectionBroken(f"{arrived} of {self._pieces} pieces have reached the trainer rank: {RUN_AGAIN}")
        self._settled = True

    def close(self, *, deliver: bool = True) -> None:
        """Close the connection; see `Connection.close`."""
        self._connection.close(deliver=deliver)
        self._close_memory()

    def may_send(self, size: int) -> bool:
        """Return whether the credit suffices for a piece of `size` bytes."""
        # The second condition admits a piece larger than the whole window once nothing else is in transit.
        return self._sent + size <= self._limit or (self._limit > 0 and self._sent + self._window <= self._limit)

    def _room_for_rows(self, size: int) -> memoryview | None:
        """Return memory in which to hold rows of `size` bytes; None where a row goes out at once, in a message."""
        if self._takes and self._memory is not None:
            # Rows are written where the rank reads them. More may be held, as they do not travel.
            room = self._memory.room(max(min(SHARED_BLOCK, self._window // 4), size))
            if room is not None:
                return room
        held = max(self._coalesce_bytes, min(BLOCK, self._window // 8)) if self._coalesce_bytes else 0
        return memoryview(bytearray(held)) if 2 * size <= held else None

    def _holds(self) -> bool:
        return bool(self._pending) or self._rows.number > 0

    def _count(self, size: int) -> None:
        self._sent += size
        self._bytes += size

    def _flush_rows(self) -> None:
        """Send the rows that are held back."""
        rows = self._rows
        if not rows.number:
            return
        step, distance, number, begin = rows.first, rows.distance, rows.number, rows.time
        payload = rows.take()
        placed = self._memory.keep(len(payload), self._bytes) if self._memory is not None else None
        message = bytes(payload) if len(payload) < SMALLEST else payload  # small ones in shared memory are copied
        self._send_block(step, distance, number, begin, placed or message, reference=placed is not None)

    def _send_block(
        self, step: int, distance: int, number: int, time: float, payload: Frame, *, reference: bool = False
    ) -> None:
        header = self._stream._replace(kind=Kind.BLOCK, step=step, offset=distance, count=number, time=time)
        self._pieces += 1
        self._unheard = True
        self._connection.send([header.pack(reference=reference), payload])

    def _wait_for_credit(self, size: int) -> None:
        begun = time.monotonic()
        self._listen(0)
        if size > self._window // 8:
            # The rank grants more credit when an eighth of the window has been used; this piece may need it earlier.
            self._ask(Kind.CREDIT)
        self._wait_until(lambda: self.may_send(size), Kind.CREDIT)
        self.blocked_seconds += time.monotonic() - begun

    def _wait_until(self, condition: Callable[[], bool], question: Kind) -> None:
        """Wait for an answer of the rank.

        After a silent reconnect the rank has forgotten this stream; repeat `question` until it answers or refuses.
        """
        interval = FIRST_REPEAT
        asked = time.monotonic()
        while not condition():
            self._listen(WAIT)
            self._check()
            if self._refusal is not None:
                raise self._refusal
            if time.monotonic() - asked > interval:
                self._ask(question)
                asked, interval = time.monotonic(), min(2 * interval, LONGEST_REPEAT)

    def _ask(self, kind: Kind) -> None:
        self._connection.send([self._stream._replace(kind=kind).pack()])

    def _listen(self, timeout: float) -> None:
        while (frames := self._connection.receive(timeout)) is not None:
            timeout = 0
            header, payload = unpack(frames[0]), b"".join(frames[1:2])  # CREDIT has no payload
            ours = (header.simulation, header.attempt) == (self._stream.simulation, self._stream.attempt)
            if header.kind is Kind.CREDIT:
                if ours:  # the answer to BEGIN tells what an earlier simulation's CREDIT would
                    self._take_credit(header.credit)
            elif header.kind is Kind.STREAMED:
                if ours:
                    self._streamed = Streamed.unpack(payload)
            elif header.kind is Kind.SHARED:
                if ours:
                    self._takes = self._offers = header.count == 1
                    if not self._takes:
                        self._close_memory()
            elif header.kind is Kind.REFUSE:
                if ours or not header.attempt:  # attempt 0: the rank could not read a message
                    self._refusal = self._refusal or _refusal(Refuse.unpack(payload))
            else:
                raise WireError(f"{header.kind.name} on a data connection")

    def _take_credit(self, count: int) -> None:
        if not self._has_credit:
            # The rank counts bytes from the start of the connection, and ZeroMQ may have reconnected since the last
            # simulation. Its answer to BEGIN gives its count: it has processed everything that came before BEGIN.
            self._has_credit = True
            self._sent = count - self._window + self._bytes
            self._limit = count
        else:
            self._limit = max(self._limit, count)
        if self._memory is not None:
            self._memory.release(self._limit - self._window - (self._sent - self._bytes))

    def _offer_memory(self, header: Header) -> None:
        """Offer memory to the rank. It is done for each simulation: ZeroMQ may have reconnected since the last."""
        self._takes = False
        if not self._settled:
            # Pieces of a simulation that has failed may wait to be read, and nothing tells: the next gets other memory.
            self._close_memory()
        if self._offers and self._memory is None:
            try:
                self._memory = SharedMemory(self._window)
            except OSError:  # not on this system
                self._offers = False
        if self._memory is not None:
            self._memory.release(self._bytes)  # all of the simulation before
            self._connection.send([header._replace(kind=Kind.SHARE).pack(), self._memory.share().pack()])
        self._settled = False

    def _close_memory(self) -> None:
        if self._memory is not None:
            self._rows = HeldRows()  # rows that were in it are wanted no more
            self._memory.close()
            self._memory = None


RUN_AGAIN = "the connection has broken, and the pieces in transit are lost; the simulation must be run again"


def _refusal(refuse: Refuse) -> PenstockError:
    if refuse.reason is Reason.NO_BEGIN:  # BEGIN was sent first, so this is a new connection
        return ConnectionBroken(f"the trainer rank does not know this stream ({refuse.text}): {RUN_AGAIN}")
    return Refused(refuse.reason, refuse.text)
