"""Payloads of the data connections (docs/wire-format.md); see `penstock_client.payloads` for their form."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from penstock_client.codec import Reader, Writer
from penstock_client.errors import WireError


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


TOKEN_BYTES = 16


@dataclass(frozen=True)
class Share:
    """SHARE, client -> trainer rank: offers memory of the client that a server on the same node can read.

    Attributes:
        boot: 16 bytes, the boot id of the client's machine.
        pid: process id of the client.
        descriptor: file descriptor of the memory in that process.
        size: bytes of the memory.
        token: 16 random bytes, with which the memory begins.
    """

    boot: bytes
    pid: int
    descriptor: int
    size: int
    token: bytes

    def pack(self) -> bytes:
        """Return the bytes of this payload."""
        return Writer().raw(self.boot).put("IIQ", self.pid, self.descriptor, self.size).raw(self.token).bytes()

    @classmethod
    def unpack(cls, frame: bytes | memoryview) -> Share:
        """Read the payload of SHARE."""
        r = Reader(frame)
        share = cls(r.raw(16), r.integer("I"), r.integer("I"), r.integer("Q"), r.raw(TOKEN_BYTES))
        r.end()
        return share


@dataclass(frozen=True)
class Reference:
    """Where a payload lies in shared memory; the payload frame of a message whose header has the reference bit.

    Attributes:
        offset: first byte of the payload.
        size: number of its bytes.
    """

    offset: int
    size: int

    def pack(self) -> bytes:
        """Return the bytes of this reference."""
        return _REFERENCE.pack(self.offset, self.size)

    @classmethod
    def unpack(cls, frame: bytes | memoryview) -> Reference:
        """Read a reference."""
        if len(frame) != _REFERENCE.size:
            raise WireError(f"reference to shared memory of {len(frame)} bytes, expected {_REFERENCE.size}")
        return cls(*_REFERENCE.unpack(frame))


_REFERENCE = struct.Struct("<QQ")
