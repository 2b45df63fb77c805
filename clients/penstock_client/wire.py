"""The wire format: one fixed little-endian header of 64 bytes, then raw payload frames. Never pickle.

The specification is docs/wire-format.md; tests/wire/vectors.json holds the test vectors that this module and
libpenstock (clients/c) both pass.
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
ANY_SIMULATION = -1  # NEXT: hand me whichever simulation is due

_HEADER = struct.Struct("<4sHBBIIqqIIQQd")
assert _HEADER.size == HEADER_BYTES


class Kind(IntEnum):
    """What a message is. Requests and their answers are listed side by side in docs/wire-format.md."""

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


class Dtype(IntEnum):
    """Element types a field may have on the wire (little-endian)."""

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
        kind: what the message is.
        incarnation: the server's life that this message belongs to.
        simulation: simulation id, or ANY_SIMULATION.
        attempt: attempt number of the simulation, from 1.
        step: time step (0, 1, 2, ... in order of emission), or STATIC_STEP.
        field: field id as given by ACCEPT.
        rank: MPI rank of the sender within its simulation.
        offset: first element of the piece within the field (elements, components included).
        count: elements in the piece; for CREDIT, the cumulative number of payload bytes the client may have sent.
        dtype: element type of the payload.
        time: physical time of the time step in the solver's units; NaN where the solver has none.
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

    def pack(self) -> bytes:
        """The 64 bytes of this header."""
        return _HEADER.pack(
            MAGIC,
            VERSION,
            self.kind,
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


class VersionMismatch(WireError):
    """A header of another version of the wire format."""


def unpack(frame: bytes | memoryview) -> Header:
    """Read a header frame.

    Raises:
        VersionMismatch: the sender speaks another version.
        WireError: not 64 bytes, wrong magic, unknown kind or dtype.
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
