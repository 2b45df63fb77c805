"""Flat binary payloads of the control messages (docs/wire-format.md), so that a C client needs no parser library.

Every payload is a dataclass with `pack()` and a classmethod `unpack(frame)`. Strings are UTF-8 behind a u32 length.
`unpack` raises WireError on truncated or trailing bytes, and checks every length before it allocates.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from penstock_client.codec import Reader, Writer
from penstock_client.errors import WireError
from penstock_client.reasons import Reason
from penstock_client.wire import Dtype


@dataclass(frozen=True)
class Hello:
    """HELLO, client -> coordinator: the first message of a client process.

    client: 16 random bytes that name this client process on every connection; pid and host are for messages only.
    """

    client: bytes
    pid: int
    host: str

    def pack(self) -> bytes:
        return Writer().raw(self.client).put("I", self.pid).string(self.host).bytes()

    @classmethod
    def unpack(cls, frame: bytes | memoryview) -> Hello:
        r = Reader(frame)
        hello = cls(r.raw(16), r.integer("I"), r.string())
        r.end()
        return hello


@dataclass(frozen=True)
class Welcome:
    """WELCOME, coordinator -> client: where to send what.

    heartbeat_ms, server_timeout_ms: how often to beat, and how long a silence means the server is gone.
    credit_bytes: window of each data connection. coalesce_bytes, coalesce_ms: small pieces may be sent together up
    to so many payload bytes and for so long.
    pin_simulations: False: time step k of simulation s goes to rank (s + k) mod n. True: all of s goes to rank s mod n.
    rank_endpoints: data sockets, one a trainer rank, in rank order (they share the study's server key).
    parameters: names, in the order of every ASSIGN. fields: the study's field names.
    solver: JSON text that tells a worker how to run the solver; a solver that streams for itself ignores it.
    """

    heartbeat_ms: int
    server_timeout_ms: int
    credit_bytes: int
    coalesce_bytes: int
    coalesce_ms: int
    pin_simulations: bool
    rank_endpoints: tuple[str, ...]
    parameters: tuple[str, ...]
    fields: tuple[str, ...]
    solver: str

    def pack(self) -> bytes:
        w = Writer().put("IIQIIB", self.heartbeat_ms, self.server_timeout_ms, self.credit_bytes, self.coalesce_bytes,
                         self.coalesce_ms, self.pin_simulations)  # fmt: skip
        for names in (self.rank_endpoints, self.parameters, self.fields):
            w.put("I", len(names))
            for name in names:
                w.string(name)
        return w.string(self.solver).bytes()

    @classmethod
    def unpack(cls, frame: bytes | memoryview) -> Welcome:
        r = Reader(frame)
        heartbeat, timeout, credit, coalesce_bytes, coalesce_ms, pin = r.integers("IIQIIB")
        ranks, parameters, fields = (tuple(r.string() for _ in range(r.count())) for _ in range(3))
        welcome = cls(
            heartbeat, timeout, credit, coalesce_bytes, coalesce_ms, bool(pin), ranks, parameters, fields, r.string()
        )
        r.end()
        return welcome


@dataclass(frozen=True)
class Assign:
    """ASSIGN, coordinator -> client: one simulation; its id and attempt are in the header. validation: held out."""

    parameters: tuple[float, ...]
    validation: bool

    def pack(self) -> bytes:
        return Writer().put("BI", self.validation, len(self.parameters)).put(
            f"{len(self.parameters)}d", *self.parameters
        ).bytes()  # fmt: skip

    @classmethod
    def unpack(cls, frame: bytes | memoryview) -> Assign:
        r = Reader(frame)
        validation = bool(r.integer("B"))
        assign = cls(r.doubles(r.count()), validation)
        r.end()
        return assign


@dataclass(frozen=True)
class FieldAnnouncement:
    """One field as a client will send it: `shape` is the spatial shape (row-major), whole over all solver ranks.

    A structured 2D field has shape (ny, nx); an unstructured one (n_cells,). Elements on the wire are ordered by point,
    components fastest: count = prod(shape) x components. static: sent once a study (mesh geometry), at STATIC_STEP.
    """

    name: str
    dtype: Dtype
    components: int
    shape: tuple[int, ...]
    static: bool = False


@dataclass(frozen=True)
class Announce:
    """ANNOUNCE, client -> coordinator: every field this simulation will send, in one message."""

    fields: tuple[FieldAnnouncement, ...]

    def pack(self) -> bytes:
        w = Writer().put("I", len(self.fields))
        for f in self.fields:
            w.string(f.name).put("BBII", f.dtype, f.static, f.components, len(f.shape)).put(
                f"{len(f.shape)}Q", *f.shape
            )
        return w.bytes()

    @classmethod
    def unpack(cls, frame: bytes | memoryview) -> Announce:
        r = Reader(frame)
        fields = []
        for _ in range(r.count()):
            name = r.string()
            dtype, static, components, ndim = r.integers("BBII")
            if ndim > 8:
                raise WireError(f"field {name!r} has {ndim} dimensions, at most 8 are allowed")
            try:
                kind = Dtype(dtype)
            except ValueError as error:
                raise WireError(f"field {name!r} has unknown dtype {dtype}") from error
            fields.append(FieldAnnouncement(name, kind, components, r.integers(f"{ndim}Q"), bool(static)))
        r.end()
        return cls(tuple(fields))


@dataclass(frozen=True)
class Accept:
    """ACCEPT, coordinator -> client: the field ids, in the order announced; `wanted` is False where a static field
    has already arrived and need not be sent again."""

    ids: tuple[int, ...]
    wanted: tuple[bool, ...]

    def pack(self) -> bytes:
        w = Writer().put("I", len(self.ids))
        for number, wanted in zip(self.ids, self.wanted, strict=True):
            w.put("IB", number, wanted)
        return w.bytes()

    @classmethod
    def unpack(cls, frame: bytes | memoryview) -> Accept:
        r = Reader(frame)
        pairs = [r.integers("IB") for _ in range(r.count())]
        r.end()
        return cls(tuple(p[0] for p in pairs), tuple(bool(p[1]) for p in pairs))


@dataclass(frozen=True)
class Begin:
    """BEGIN, client -> trainer rank: opens a simulation's stream; id, attempt and sender's rank are in the header.

    ranks: how many solver ranks send pieces. parameters: as assigned.
    """

    ranks: int
    parameters: tuple[float, ...]

    def pack(self) -> bytes:
        return Writer().put("II", self.ranks, len(self.parameters)).put(
            f"{len(self.parameters)}d", *self.parameters
        ).bytes()  # fmt: skip

    @classmethod
    def unpack(cls, frame: bytes | memoryview) -> Begin:
        r = Reader(frame)
        ranks = r.integer("I")
        begin = cls(ranks, r.doubles(r.count()))
        r.end()
        return begin


@dataclass(frozen=True)
class Streamed:
    """STREAMED, trainer rank -> client, answers END: pieces of this stream that were accepted, dropped as
    duplicates, and refused."""

    accepted: int
    duplicates: int
    refused: int

    def pack(self) -> bytes:
        return Writer().put("QQQ", self.accepted, self.duplicates, self.refused).bytes()

    @classmethod
    def unpack(cls, frame: bytes | memoryview) -> Streamed:
        r = Reader(frame)
        streamed = cls(*r.integers("QQQ"))
        r.end()
        return streamed


class Outcome(IntEnum):
    """How a solver rank's simulation ended."""

    FINISHED = 0  # every time step sent and confirmed by the trainer ranks
    FAILED = 1  # diverged, crashed, refused: `message` says why
    RETURNED = 2  # handed back unfinished (a worker that must leave); does not count as a failure
    EXITED = 3  # the runner saw the solver process end well; the stream itself must have said FINISHED


@dataclass(frozen=True)
class Finish:
    """FINISH, client -> coordinator: one solver rank has ended. steps: time steps sent; message: for people."""

    outcome: Outcome
    ranks: int
    steps: int
    message: str
    blocked_seconds: float

    def pack(self) -> bytes:
        return Writer().put("BIQd", self.outcome, self.ranks, self.steps, self.blocked_seconds).string(
            self.message
        ).bytes()  # fmt: skip

    @classmethod
    def unpack(cls, frame: bytes | memoryview) -> Finish:
        r = Reader(frame)
        outcome, ranks, steps = r.integers("BIQ")
        blocked = r.doubles(1)[0]
        try:
            finish = cls(Outcome(outcome), ranks, steps, r.string(), blocked)
        except ValueError as error:
            raise WireError(f"unknown outcome {outcome}") from error
        r.end()
        return finish


@dataclass(frozen=True)
class Alive:
    """ALIVE, coordinator -> client, answers HEARTBEAT. abandon: stop the simulation named in the header."""

    abandon: bool

    def pack(self) -> bytes:
        return Writer().put("B", self.abandon).bytes()

    @classmethod
    def unpack(cls, frame: bytes | memoryview) -> Alive:
        r = Reader(frame)
        alive = cls(bool(r.integer("B")))
        r.end()
        return alive


@dataclass(frozen=True)
class Refuse:
    """REFUSE, server -> client: why a message was not taken; the header repeats the refused message's header."""

    reason: Reason
    text: str

    def pack(self) -> bytes:
        return Writer().put("I", self.reason).string(self.text).bytes()

    @classmethod
    def unpack(cls, frame: bytes | memoryview) -> Refuse:
        r = Reader(frame)
        code = r.integer("I")
        try:
            refuse = cls(Reason(code), r.string())
        except ValueError as error:
            raise WireError(f"unknown refusal reason {code}") from error
        r.end()
        return refuse
