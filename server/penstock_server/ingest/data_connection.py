"""One data connection of a trainer rank: the stream that is open on it, and its credit."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_client.stream_payloads import Streamed
from penstock_client.wire import Header
from penstock_server.ingest.client_memory import ClientMemory

NOTHING_STREAMED = Streamed(0, 0, 0)


@dataclass
class DataConnection:
    """One data connection: the stream that is open on it, and its credit.

    Attributes:
        peer: its routing id.
        worker: name of the key with which its client is connected.
        stream: header of the BEGIN that opened its current stream; None before the first.
        parameters: of the simulation that is streamed, without the seeds.
        streamed: pieces of the current stream, by what became of them.
        consumed: payload bytes dealt with since the connection was made.
        granted: payload bytes the client may have sent since then.
        memory: of the client, in which payloads may be; None: all come in messages.
    """

    peer: bytes
    worker: str = ""
    stream: Header | None = None
    parameters: tuple[float, ...] = ()
    streamed: Streamed = NOTHING_STREAMED
    consumed: int = 0
    granted: int = 0
    memory: ClientMemory | None = None

    def count_piece(self, *, new: bool) -> None:
        """Count a piece as accepted, or as a duplicate when it is not new."""
        s = self.streamed
        self.streamed = Streamed(s.accepted + new, s.duplicates + (not new), s.refused)

    def count_refused_piece(self) -> int:
        """Count a refused piece and return how many of the stream were refused before it."""
        s = self.streamed
        self.streamed = Streamed(s.accepted, s.duplicates, s.refused + 1)
        return s.refused

    def needs_credit(self, credit: int) -> bool:
        """Return whether an eighth of `credit` bytes has been used since the last grant."""
        return self.stream is not None and self.consumed + credit - self.granted >= credit // 8

    def grant(self, credit: int) -> Header:
        """Allow `credit` bytes beyond those consumed; return the header of the answer that says so."""
        assert self.stream is not None
        self.granted = self.consumed + credit
        return self.stream.with_credit(self.granted)
