"""Payloads of the control connection and of REFUSE (docs/wire-format.md).

They are flat and binary, so that a C client needs no parser library.
Every payload is a dataclass with `pack()`, which returns its bytes, and a classmethod `unpack(frame)`, which reads
them. A string is UTF-8 after its length, a u32. `unpack` raises WireError on truncated or trailing bytes, and checks
every length before it allocates memory.
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

    Attributes:
        client: 16 random bytes that identify this client process on all its connections.
        pid: process id, for messages only.
        host: name of the machine, for messages only.
    """

    client: bytes
    pid: int
    host: str

    def pack(self) -> bytes:
        """Return the bytes of this payload."""
        return Writer().raw(self.client).put("I", self.pid).foreign_text(self.host).bytes()

    @classmethod
    def unpack(cls, frame: bytes | memoryview) -> Hello:
        """Read the payload of HELLO."""
        r = Reader(frame)
        hello = cls(r.raw(16), r.integer("I"), r.string())
        r.end()
        return hello


@dataclass(frozen=True)
class Welcome:
    """WELCOME, coordinator -> client: the settings of the study that a client needs.

    Attributes:
        heartbeat_ms: milliseconds between two heartbeats.
        server_timeout_ms: milliseconds without an answer after which the server counts as lost.
        credit_bytes: credit window of each data connection, in payload bytes.
        coalesce_bytes: small pieces may be sent together up to this many payload bytes.
        coalesce_ms: milliseconds for which small pieces may be held back.
        pin_simulations: False: time step k of simulation s goes to trainer rank (s + k) mod n. True: all time steps of
            simulation s go to trainer rank s mod n.
        rank_endpoints: endpoints of the trainer ranks' data sockets, in rank order; all use the study's server key.
        parameters: names of the parameters, in the order of every ASSIGN.
        fields: names of the study's fields.
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
        """Return the bytes of this payload."""
        w = Writer().put("IIQIIB", self.heartbeat_ms, self.server_timeout_ms, self.credit_bytes, self.coalesce_bytes,
                         self.coalesce_ms, self.pin_simulations)  # fmt: skip
        for names in (self.rank_endpoints, self.parameters, self.fields):
            w.put("I", len(names))
            for name in names:
                w.string(name)
        return w.string(self.solver).bytes()

    @classmethod
    def unpack(cls, frame: bytes | memoryview) -> Welcome:
        """Read the payload of WELCOME."""
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
    """ASSIGN, coordinator -> client: one simulation; its id and attempt number are in the header.

    Attributes:
        parameters: parameter values, in the order of WELCOME.
        validation: True if the simulation is held out for validation.
    """

    parameters: tuple[float, ...]
    validation: bool

    def pack(self) -> bytes:
        """Return the bytes of this payload."""
        return Writer().put("BI", self.validation, len(self.parameters)).put(
            f"{len(self.parameters)}d", *self.parameters
        ).bytes()  # fmt: skip

    @classmethod
    def unpack(cls, frame: bytes | memoryview) -> Assign:
        """Read the payload of ASSIGN."""
        r = Reader(frame)
        validation = bool(r.integer("B"))
        assign = cls(r.doubles(r.count()), validation)
        r.end()
        return assign


@dataclass(frozen=True)
class FieldAnnouncement:
    """One field as a client will send it.

    Elements on the wire are ordered by point, components fastest; a field has prod(shape) x components elements.

    Attributes:
        name: name of the field.
        dtype: element type.
        components: number of components per point.
        shape: spatial shape of the whole field over all solver ranks, row-major: (ny, nx) if structured, (n_cells,) if
            unstructured.
        static: True for mesh geometry, which is sent once per study, as time step STATIC_STEP.
    """

    name: str
    dtype: Dtype
    components: int
    shape: tuple[int, ...]
    static: bool = False


@dataclass(frozen=True)
class Announce:
    """ANNOUNCE, client -> coordinator: all fields that this simulation will send.

    Attributes:
        fields: the fields.
    """

    fields: tuple[FieldAnnouncement, ...]

    def pack(self) -> bytes:
        """Return the bytes of this payload."""
        w = Writer().put("I", len(self.fields))
        for f in self.fields:
            w.string(f.name).put("BBII", f.dtype, f.static, f.components, len(f.shape)).put(
                f"{len(f.shape)}Q", *f.shape
            )
        return w.bytes()

    @classmethod
    def unpack(cls, frame: bytes | memoryview) -> Announce:
        """Read the payload of ANNOUNCE."""
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
    """ACCEPT, coordinator -> client: the answer to ANNOUNCE.

    Attributes:
        ids: field ids, in the order of ANNOUNCE.
        wanted: for each field, False if it is a static field that the server already has.
    """

    ids: tuple[int, ...]
    wanted: tuple[bool, ...]

    def pack(self) -> bytes:
        """Return the bytes of this payload."""
        w = Writer().put("I", len(self.ids))
        for number, wanted in zip(self.ids, self.wanted, strict=True):
            w.put("IB", number, wanted)
        return w.bytes()

    @classmethod
    def unpack(cls, frame: bytes | memoryview) -> Accept:
        """Read the payload of ACCEPT."""
        r = Reader(frame)
        pairs = [r.integers("IB") for _ in range(r.count())]
        r.end()
        return cls(tuple(p[0] for p in pairs), tuple(bool(p[1]) for p in pairs))


class Outcome(IntEnum):
    """How a solver rank's simulation ended."""

    FINISHED = 0  # every time step sent and confirmed by the trainer ranks
    FAILED = 1  # diverged, crashed, refused: `message` says why
    RETURNED = 2  # handed back unfinished by a worker that must leave; not a failure
    EXITED = 3  # the solver's process ended with code 0; its stream must have reported FINISHED before
    FAILED_FOR_GOOD = 4  # failed, and would fail again with the same parameters: `message` says why


@dataclass(frozen=True)
class Finish:
    """FINISH, client -> coordinator: one solver rank has ended its simulation.

    Attributes:
        outcome: how the simulation ended.
        ranks: number of solver ranks.
        steps: number of time steps sent.
        message: reason of a failure, or summary of the run, for people.
        blocked_seconds: seconds that this rank spent waiting for credit.
    """

    outcome: Outcome
    ranks: int
    steps: int
    message: str
    blocked_seconds: float

    def pack(self) -> bytes:
        """Return the bytes of this payload."""
        return Writer().put("BIQd", self.outcome, self.ranks, self.steps, self.blocked_seconds).foreign_text(
            self.message
        ).bytes()  # fmt: skip

    @classmethod
    def unpack(cls, frame: bytes | memoryview) -> Finish:
        """Read the payload of FINISH."""
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
    """ALIVE, coordinator -> client: the answer to HEARTBEAT.

    Attributes:
        abandon: True if the client must stop the simulation that the header names.
    """

    abandon: bool

    def pack(self) -> bytes:
        """Return the bytes of this payload."""
        return Writer().put("B", self.abandon).bytes()

    @classmethod
    def unpack(cls, frame: bytes | memoryview) -> Alive:
        """Read the payload of ALIVE."""
        r = Reader(frame)
        alive = cls(bool(r.integer("B")))
        r.end()
        return alive


@dataclass(frozen=True)
class Refuse:
    """REFUSE, server -> client: a message was refused; the header repeats that message's header.

    Attributes:
        reason: machine-readable reason.
        text: explanation for people.
    """

    reason: Reason
    text: str

    def pack(self) -> bytes:
        """Return the bytes of this payload."""
        return Writer().put("I", self.reason).foreign_text(self.text).bytes()

    @classmethod
    def unpack(cls, frame: bytes | memoryview) -> Refuse:
        """Read the payload of REFUSE."""
        r = Reader(frame)
        code = r.integer("I")
        try:
            refuse = cls(Reason(code), r.string())
        except ValueError as error:
            raise WireError(f"unknown refusal reason {code}") from error
        r.end()
        return refuse
