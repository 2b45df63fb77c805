"""The wire format: a fixed little-endian header of 64 bytes, then raw payload frames; no pickled data.

docs/wire-format.md is the specification. tests/wire/vectors.json holds the test vectors for this module and for
libpenstock (clients/c).
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from penstock_client.errors import WireError

MAGIC = b"PNSK"
VERSION = 1
HEADER_BYTES = 64
STATIC_STEP = -1  # time step of a static field (mesh cell centres, cell volumes)
MAX_PIECE_BYTES = 1 << 24  # a larger part of a field goes as several pieces, so that messages stay small
ANY_SIMULATION = -1  # in NEXT: any simulation that is waiting
REFERENCE_BIT = 0x80  # of the kind byte: the payload frame holds a reference to shared memory, not the payload
_KIND_AT = 6  # where the kind is in a header

_HEADER = struct.Struct("<4sHBBIIqqIIQQd")
assert _HEADER.size == HEADER_BYTES


class Kind(IntEnum):
    """Kind of a message. docs/wire-format.md lists requests with their answers."""

    HELLO = 1
    WELCOME = 2
    NEXT = 3
    ASSIGN = 4
    NO_MORE = 5
    ANNOUNCE = 6
    ACCEPT = 7
    BEGIN = 8
    PIECE = 9
    CREDIT = 10
    END = 11
    STREAMED = 12
    FINISH = 13
    FINISHED = 14
    HEARTBEAT = 15
    ALIVE = 16
    REFUSE = 17
    INDICES = 18
    SHARE = 19
    SHARED = 20
    BLOCK = 21


class Dtype(IntEnum):
    """Element type of a field on the wire (little-endian)."""

    NONE = 0
    FLOAT32 = 1
    FLOAT64 = 2
    INT32 = 3
    INT64 = 4


NUMPY_DTYPES: dict[Dtype, np.dtype[np.generic]] = {
    Dtype.FLOAT32: np.dtype("<f4"),
    Dtype.FLOAT64: np.dtype("<f8"),
    Dtype.INT32: np.dtype("<i4"),
    Dtype.INT64: np.dtype("<i8"),
}
WIRE_DTYPES: dict[np.dtype[np.generic], Dtype] = {v: k for k, v in NUMPY_DTYPES.items()}


class Header(NamedTuple):
    """The fixed header. Fields that a kind does not use are 0.

    Attributes:
        kind: kind of the message.
        incarnation: incarnation of the server that this message is for, or comes from.
        simulation: simulation id, or ANY_SIMULATION.
        attempt: attempt number of the simulation, starting at 1.
        step: number of the time step (0, 1, 2, ... in the order of sending), or STATIC_STEP.
        field: field id, as given by ACCEPT.
        rank: MPI rank of the sender within its simulation.
        offset: first element of the piece within the field, components included; for a request to the coordinator and
            its answer, the number of the request (`request_number`); for BLOCK, the distance of its time steps.
        count: number of elements in the piece; for BLOCK, the number of time steps; for CREDIT, the cumulative
            number of payload bytes the client may send (`credit`).
        dtype: element type of the payload.
        time: physical time of the time step in the solver's units; NaN if the solver has none.
    """

    kind: Kind
    incarnation: int = 0
    simulation: int = 0
    attempt: int = 0
    step: int = 0
    field: int = 0
    rank: int = 0
    offset: int = 0
    count: int = 0  # type: ignore[assignment]  # hides tuple.count, which nobody needs on a header
    dtype: Dtype = Dtype.NONE
    time: float = 0.0

    @property
    def request_number(self) -> int:
        """Number of a request to the coordinator, which its answer repeats; it travels in `offset`."""
        return self.offset

    @property
    def credit(self) -> int:
        """Payload bytes that a client may have sent on its data connection so far (CREDIT); it travels in `count`."""
        return self.count

    def with_request_number(self, number: int) -> Header:
        """Return this header with a request number."""
        return self._replace(offset=number)

    def with_credit(self, granted: int) -> Header:
        """Return this header with a number of payload bytes granted."""
        return self._replace(count=granted)

    def pack(self, *, reference: bool = False) -> bytes:
        """Return the 64 bytes of this header.

        Args:
            reference: whether the payload frame holds a reference to shared memory in place of the payload.
        """
        return _HEADER.pack(
            MAGIC,
            VERSION,
            self.kind | REFERENCE_BIT if reference else self.kind,
            self.dtype,
            self.incarnation,
            self.attempt,
            self.simulation,
            self.step,
            self.field,
            self.rank,
            self.offset,
            self.count,
            self.time,
        )


def take_reference_bit(frame: bytes) -> tuple[bytes, bool]:
    """Return a header frame without its reference bit, and whether the bit was set.

    Args:
        frame: the first frame of a message; a frame that is too short for a header comes back as it is.
    """
    if len(frame) <= _KIND_AT or not frame[_KIND_AT] & REFERENCE_BIT:
        return frame, False
    return frame[:_KIND_AT] + bytes([frame[_KIND_AT] ^ REFERENCE_BIT]) + frame[_KIND_AT + 1 :], True


class VersionMismatch(WireError):
    """The header has another version of the wire format."""


def unpack(frame: bytes | memoryview) -> Header:
    """Read a header frame.

    Args:
        frame: the first frame of a message.

    Returns:
        The header.

    Raises:
        VersionMismatch: the sender uses another version of the wire format.
        WireError: the frame does not have 64 bytes, or has the wrong magic, an unknown kind or an unknown dtype.
    """
    if len(frame) != HEADER_BYTES:
        raise WireError(f"header frame of {len(frame)} bytes, expected {HEADER_BYTES}")
    magic, version, kind, dtype, incarnation, attempt, simulation, step, field, rank, offset, count, time = (
        _HEADER.unpack(frame)
    )
    if magic != MAGIC:
        raise WireError(f"header begins with {magic!r}, expected {MAGIC!r}: the sender does not speak Penstock")
    if version != VERSION:
        raise VersionMismatch(
            f"wire format version {version}, this side speaks {VERSION}: install the same penstock on both sides"
        )
    try:
        return Header(
            Kind(kind), incarnation, simulation, attempt, step, field, rank, offset, count, Dtype(dtype), time
        )
    except ValueError as error:
        raise WireError(f"unknown kind {kind} or dtype {dtype} in header") from error
