"""Payloads of the data connections (docs/wire-format.md); see `penstock_client.payloads` for their form."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_client.codec import Reader, Writer


@dataclass(frozen=True)
class Begin:
    """BEGIN, client -> trainer rank: opens a simulation's stream; id, attempt number and solver rank are in the header.

    Attributes:
        ranks: number of solver ranks that send pieces.
        parameters: parameter values, as assigned.
    """

    ranks: int
    parameters: tuple[float, ...]

    def pack(self) -> bytes:
        """Return the bytes of this payload."""
        return Writer().put("II", self.ranks, len(self.parameters)).put(
            f"{len(self.parameters)}d", *self.parameters
        ).bytes()  # fmt: skip

    @classmethod
    def unpack(cls, frame: bytes | memoryview) -> Begin:
        """Read the payload of BEGIN."""
        r = Reader(frame)
        ranks = r.integer("I")
        begin = cls(ranks, r.doubles(r.count()))
        r.end()
        return begin


@dataclass(frozen=True)
class Streamed:
    """STREAMED, trainer rank -> client: the answer to END.

    Attributes:
        accepted: number of pieces of this stream that were accepted.
        duplicates: number of pieces that were dropped as duplicates.
        refused: number of pieces that were refused.
    """

    accepted: int
    duplicates: int
    refused: int

    def pack(self) -> bytes:
        """Return the bytes of this payload."""
        return Writer().put("QQQ", self.accepted, self.duplicates, self.refused).bytes()

    @classmethod
    def unpack(cls, frame: bytes | memoryview) -> Streamed:
        """Read the payload of STREAMED."""
        r = Reader(frame)
        streamed = cls(*r.integers("QQQ"))
        r.end()
        return streamed
