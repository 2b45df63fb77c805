"""What a server's sockets take in: ingest and coordinator, each beside a client that does everything right.

A message is handled as one of the client that it names, so a client that lies about its own simulation harms that one. Messages
that name the valid client's simulation are therefore given to another one; all else is left as it came.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections import deque
from pathlib import Path

import numpy as np
from choices import Choices
from mutations import Frames, mutated, vector_messages

from penstock_client.payloads import (
    Announce,
    Assign,
    FieldAnnouncement,
    Finish,
    Hello,
    Outcome,
    Refuse,
    Welcome,
)
from penstock_client.stream_payloads import Begin, Streamed
from penstock_client.wire import ANY_SIMULATION, STATIC_STEP, Dtype, Header, Kind, unpack
from penstock_server.buffer import Buffer, Slot
from penstock_server.coordinator import Coordinator, Point
from penstock_server.ingest import Ingest, Ledger, SampleSinks, SimulationIds
from penstock_server.study import FieldSection, SamplesSection, Schema, Study, agree
from penstock_server.telemetry import EventLog, Metrics, ServerRun
from penstock_server.training import Normaliser
from penstock_server.validation import ValidationStore

LIFE, POINTS = 7, 4
N_SIMULATIONS, HELD_OUT = 8, 7  # held out: from here on
VALID = 5  # the simulation that the valid client streams
FIRST = 7  # the one that the coordinator hands out first: to the valid client
PEERS = (b"a", b"b", b"c", b"\0\xff")
ROOMS = ("penstock_server.ingest", "penstock_server.coordinator")  # whose objects are looked into for tables
MAX_REPLY = 4096  # bytes of any answer but WELCOME
FIELDS = {"U": FieldSection(components=3), "p": FieldSection()}
ANNOUNCED = (
    FieldAnnouncement("U", Dtype.FLOAT64, 3, (POINTS,)),
    FieldAnnouncement("p", Dtype.FLOAT32, 1, (POINTS,)),
    FieldAnnouncement("cell_centres", Dtype.FLOAT64, 3, (POINTS,), True),
)
_SCHEMAS = {window: agree(ANNOUNCED, FIELDS, ("a", "b"), SamplesSection(window=window), None) for window in (1, 3)}


def values_of(step: int) -> tuple[np.ndarray, np.ndarray]:
    """U and p of a time step."""
    return np.arange(3 * POINTS, dtype="<f8") + 100 * step, np.arange(POINTS, dtype="<f4") - step


def piece(field: int, values: np.ndarray, step: int, simulation: int, offset: int = 0, attempt: int = 1) -> Frames:
    dtype = Dtype.FLOAT32 if values.dtype.itemsize == 4 else Dtype.FLOAT64
    header = Header(Kind.PIECE, LIFE, simulation, attempt, step, field, 0, offset, values.size, dtype, 0.25 * step)
    return [header.pack(), values.tobytes()]


def begin(simulation: int, attempt: int = 1, ranks: int = 1, rank: int = 0) -> Frames:
    return [Header(Kind.BEGIN, LIFE, simulation, attempt, rank=rank).pack(), Begin(ranks, (0.25, 0.5)).pack()]


def end(simulation: int, attempt: int = 1, rank: int = 0) -> Frames:
    return [Header(Kind.END, LIFE, simulation, attempt, rank=rank).pack()]


def _data_seeds() -> list[Frames]:
    seeds: list[Frames] = []
    for simulation in (0, 1, HELD_OUT):
        seeds += [begin(simulation), begin(simulation, 2), begin(simulation, 1, 2, 0), begin(simulation, 1, 2, 1)]
        seeds += [end(simulation), end(simulation, 2), end(simulation, 1, 1)]
        for step in range(4):
            u, p = values_of(step)
            seeds += [
                piece(0, u, step, simulation) + piece(1, p, step, simulation),
                piece(0, u[:5], step, simulation),
                piece(0, u[5:], step, simulation, 5),
                piece(1, p, step, simulation),
                piece(0, u, step, simulation, attempt=2) + piece(1, p, step, simulation, attempt=2),
            ]
    centres = np.arange(3.0 * POINTS)
    seeds += [piece(1 << 16, centres, STATIC_STEP, 0), piece((1 << 16) + 1, centres[:POINTS], STATIC_STEP, 0)]
    return seeds + vector_messages()


DATA_SEEDS = _data_seeds()


def spare(frames: Frames, simulation: int) -> Frames:
    """Messages that name the valid client's simulation are about another one."""
    named = simulation.to_bytes(8, "little")
    return [f[:16] + bytes(8) + f[24:] if len(f) == 64 and f[16:24] == named else f for f in frames]


def about(other: bytes, frames: Frames) -> Frames:
    """The messages made to be about the simulation and attempt of another header, so that more of them are listened to."""
    return [f[:12] + other[12:24] + f[24:] if len(f) == 64 else f for f in frames]


def check_answers(answers: list[tuple[bytes, Frames]], allowed: set[Kind], peer: bytes | None, taken: int) -> None:
    """Only answers that the protocol allows, to the peer that asked, and of bounded size."""
    assert len(answers) <= taken, f"{len(answers)} answers to {taken} frames"
    for to, frames in answers:
        header = unpack(frames[0])
        assert header.kind in allowed, header
        assert header.incarnation == LIFE
        assert peer is None or to == peer
        assert len(frames) == 2
        assert len(frames[1]) <= MAX_REPLY, f"{header.kind.name} of {len(frames[1])} bytes"
        if header.kind is Kind.REFUSE:
            Refuse.unpack(frames[1])


def held(thing: object) -> dict[str, int]:
    """The sizes of the tables that an object keeps, and of those of the objects in them."""
    sizes = {}
    for name, table in vars(thing).items():
        if isinstance(table, (dict, list, set, deque)):
            sizes[name] = len(table)
            for entry in table.values() if isinstance(table, dict) else table:
                if dataclasses.is_dataclass(entry) and hasattr(entry, "__dict__"):
                    sizes |= {f"{name}.{n}": max(size, sizes.get(f"{name}.{n}", 0)) for n, size in held(entry).items()}
        elif hasattr(table, "__dict__") and type(table).__module__.startswith(ROOMS):
            sizes |= {f"{name}.{n}": size for n, size in held(table).items()}
    return sizes


class IngestRig:
    """An ingest, everything it feeds, and the valid client beside the others."""

    metrics = Metrics("rank-0", "fuzz")  # shared by all rigs: it only counts, and is slow to make

    def __init__(self, window: int = 1, time: str = "step") -> None:
        schema = _SCHEMAS[window]
        self.buffer = Buffer(schema.spec, policy="fifo", capacity=40, batch_size=1, spare=8)
        # What is not written is NaN, and `put` looks for it: a sample with a hole does not pass unseen.
        for rows in (self.buffer._contents.storage.inputs, self.buffer._contents.storage.targets):
            rows.fill(np.nan)
        self.validation, self.normaliser = ValidationStore(schema.spec), Normaliser(schema.spec)
        self.trained, self.validated = Ledger(), Ledger()
        self.window, self.step, self.received = window, 0, 0
        self.opened: dict[bytes, bytes] = {}  # the start of the header that opened each peer's stream
        self.ingest = Ingest(
            schema,
            SamplesSection(window=window, time=time),
            SimulationIds(training=HELD_OUT, held_out=N_SIMULATIONS - HELD_OUT),
            SampleSinks(
                buffer=self.buffer,
                put=self.put,
                validation=self.validation,
                statistics=self.normaliser.update,
                trained=self.trained,
                validated=self.validated,
                on_static=self.static,
            ),
            incarnation=LIFE,
            credit=1000,
            metrics=self.metrics,
        )

    def put(self, slot: Slot) -> bool:
        assert np.isfinite(slot.inputs).all(), f"inputs {slot.inputs}"
        assert np.isfinite(slot.targets).all(), f"targets {slot.targets}"
        if slot.simulation == VALID:
            for row in range(self.window):
                np.testing.assert_array_equal(slot.targets[row], np.concatenate(values_of(slot.sample + row)))
        self.received += 1
        return self.buffer.try_commit(slot) or (self.buffer.try_get(1) is not None and self.buffer.try_commit(slot))

    def static(self, name: str, values: np.ndarray) -> None:
        assert np.isfinite(values).all(), name

    def hear(self, peer: bytes, frames: Frames) -> None:
        """A message that may be anything."""
        answers = self.ingest.handle(peer, frames, 0.0)
        check_answers(answers, {Kind.CREDIT, Kind.STREAMED, Kind.REFUSE}, peer, len(frames) + 2)
        for _, (header, _) in answers:
            if header[6] == Kind.CREDIT:
                self.opened[peer] = header

    def begin(self) -> None:
        ((_, (header, _)),) = self.ingest.handle(b"valid", begin(VALID), 0.0)
        assert unpack(header).kind is Kind.CREDIT

    def valid_step(self) -> None:
        u, p = values_of(self.step)
        frames = piece(0, u, self.step, VALID) + piece(1, p, self.step, VALID)
        for _, (header, _) in self.ingest.handle(b"valid", frames, 0.0):
            assert unpack(header).kind is Kind.CREDIT
        self.step += 1

    def conclude(self) -> None:
        """The valid client's stream is whole, and the books agree."""
        ((_, (header, payload)), *_) = self.ingest.handle(b"valid", end(VALID), 0.0)
        assert unpack(header).kind is Kind.STREAMED
        assert Streamed.unpack(payload) == Streamed(2 * self.step, 0, 0)
        assert self.trained.count(VALID) == max(0, self.step - self.window + 1)
        assert self.trained.total() == self.received == self.buffer.stats().received
        assert self.validated.total() == len(self.validation)
        for simulation, steps in self.validation.simulations().items():
            for step in steps:
                for row in self.validation.time_step(simulation, step):
                    assert bool(row.isfinite().all()), f"held-out time step {step}"
        for name, size in held(self.ingest).items():
            assert size <= 64, f"{size} entries in {name}"


def ingest(data: bytes) -> int:
    """Messages of strangers to a trainer rank; returns how many there were."""
    c = Choices(data)
    how = c.byte()
    rig = IngestRig(window=3 if how & 1 else 1, time="physical" if how & 2 else "step")
    rig.begin()
    heard = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a number that overflows on its way into a sample, for one
        while c.more:
            who = c.byte()
            peer, frames = PEERS[who & 3], mutated(c, DATA_SEEDS)
            if who & 4 and peer in rig.opened:
                frames = about(rig.opened[peer], frames)
            rig.hear(peer, spare(frames, VALID))
            heard += 1
            if heard & 3 == 0:
                rig.valid_step()
        rig.conclude()
    return heard


# --- the coordinator ----------------------------------------------------------------------------------------------------


def _control(kind: Kind, payload: bytes = b"", simulation: int = ANY_SIMULATION, attempt: int = 0) -> Frames:
    return [Header(kind, LIFE, simulation, attempt).pack(), payload]


def _control_seeds() -> list[Frames]:
    seeds = [_control(Kind.HELLO, Hello(peer.ljust(16, b"."), 1, "host").pack()) for peer in PEERS for _ in range(2)]
    seeds += [_control(Kind.NEXT)] * 3 + [_control(Kind.NEXT, b"", s, a) for s in (0, 1, 2) for a in (1, 2)]
    for simulation in (0, 1, 2):
        for attempt in (1, 2):
            seeds.append(_control(Kind.ANNOUNCE, Announce(ANNOUNCED).pack(), simulation, attempt))
            seeds.append(_control(Kind.HEARTBEAT, PEERS[0].ljust(16, b"."), simulation, attempt))
            seeds += [
                _control(
                    Kind.FINISH, Finish(outcome, 1 + (attempt > 1), 5, "so it ended", 0.5).pack(), simulation, attempt
                )
                for outcome in Outcome
            ]
    return seeds + vector_messages()


CONTROL_SEEDS = _control_seeds()
CONTROL_ANSWERS = {
    *(Kind.WELCOME, Kind.ASSIGN, Kind.NO_MORE, Kind.ACCEPT),
    *(Kind.FINISHED, Kind.ALIVE, Kind.REFUSE),
}
_WELCOME = Welcome(1000, 5000, 1000, 100, 10, False, ("tcp://127.0.0.1:1",), ("a", "b"), ("U", "p"), "{}")


class _Nowhere(EventLog):
    """Events that are written and forgotten; the texts are made all the same."""

    def __init__(self) -> None:
        super().__init__(Path("/dev/null"))
        self.lines = 0

    def write(self, event: str, **values: object) -> None:
        self.lines += 1
        assert len(repr(values)) <= 8 * MAX_REPLY, f"{event} of {len(repr(values))} characters"
        super().write(event, **values)


_EVENTS = _Nowhere()
_STUDY = Study.model_validate(
    {
        "study": {"name": "fuzz"},
        "parameters": {"a": [0.0, 10.0], "b": [0.0, 1.0]},
        "solver": {"adapter": "heat2d", "simulations": HELD_OUT, "validation_simulations": 1, "retries": 1000},
        "fields": FIELDS,
        "server": {"client_timeout": 1e9, "max_message": 2**63},
    }
)


class CoordinatorRig:
    """A coordinator whose trainer ranks get ready late, and the valid client, which serves simulation FIRST."""

    metrics = Metrics("coordinator", "fuzz")  # shared by all rigs, as ingest's

    def __init__(self, *, ready: bool) -> None:
        self.events = _EVENTS
        self.schema: Schema | None = None
        self.asked = 0
        self._refused_before = sum(self.metrics.refusals().values())
        self.assigned: dict[bytes, bytes] = {}  # the latest ASSIGN's header of each peer
        self.coordinator = Coordinator(
            [Point((float(i), 0.5), validation=i >= HELD_OUT) for i in range(N_SIMULATIONS)],
            _WELCOME,
            _STUDY,
            ServerRun(LIFE, self.events, self.metrics),
            on_schema=lambda schema: self.agreed(schema) or ready,
        )
        self.key = b"valid".ljust(16, b".")
        assert self.ask(_control(Kind.HELLO, Hello(self.key, 1, "host").pack())) is Kind.WELCOME
        assert self.ask(_control(Kind.NEXT)) is Kind.ASSIGN  # the held-out one, which comes first

    def agreed(self, schema: Schema) -> None:
        self.schema = schema

    @property
    def refused(self) -> int:
        """Refusals so far."""
        return sum(self.metrics.refusals().values()) - self._refused_before

    def ask(self, frames: Frames) -> Kind | None:
        """What the valid client is answered at once."""
        frames = self.numbered(frames)
        own = [unpack(f[0]).kind for to, f in self.coordinator.handle(b"valid", frames, 0.0) if to == b"valid"]
        return own[0] if own else None

    def numbered(self, frames: Frames) -> Frames:
        """A header's offset counts a client's requests."""
        self.asked += 1
        return [f[:40] + self.asked.to_bytes(8, "little") + f[48:] if len(f) == 64 else f for f in frames]

    def hear(self, peer: bytes, frames: Frames) -> None:
        before = self.refused
        answers = self.coordinator.handle(peer, frames, 0.0)
        check_answers(answers, CONTROL_ANSWERS, None, 2 * len(PEERS) + N_SIMULATIONS)
        refusals = sum(unpack(f[0]).kind is Kind.REFUSE for _, f in answers)
        assert 0 <= refusals - (self.refused - before) <= 1, (
            "a refusal was not sent, or not counted; a repeated request gets its own again"
        )
        for to, f in answers:
            header = unpack(f[0])
            assert to != b"valid", f"{header.kind.name} to a client that had not asked"
            if header.kind is Kind.ASSIGN:
                self.assigned[to] = f[0]
                assert header.simulation != FIRST
                assert Assign.unpack(f[1]).parameters == (float(header.simulation), 0.5)

    def heartbeat(self) -> None:
        assert self.ask(_control(Kind.HEARTBEAT, self.key, FIRST, 1)) is Kind.ALIVE

    def conclude(self) -> None:
        c = self.coordinator
        for name, size in held(c).items():
            # Who speaks is known by 16 bytes of its own choice: how many there are is bounded elsewhere.
            assert size <= 4 * N_SIMULATIONS or "client" in name, f"{size} entries in {name}"
        assert 0 <= c.blocked_seconds < float("inf")
        assert c.expected(lambda _simulation: 0) <= N_SIMULATIONS * 2**24
        assert all(len(text) <= MAX_REPLY for text in c.failures().values())
        self.heartbeat()
        before = c.counts()
        assert before.requested == N_SIMULATIONS
        assert before.running + before.finished + before.failed <= N_SIMULATIONS
        if self.schema in (None, _SCHEMAS[1]):
            asked = self.ask(_control(Kind.ANNOUNCE, Announce(ANNOUNCED).pack(), FIRST, 1))
            assert asked in (Kind.ACCEPT, None), asked
        assert (
            self.ask(_control(Kind.FINISH, Finish(Outcome.FINISHED, 1, 3, "", 0.5).pack(), FIRST, 1)) is Kind.FINISHED
        )
        assert c.counts().finished == before.finished + 1
        json.dumps(c.state_dict(), allow_nan=False)


def coordinator(data: bytes) -> int:
    """Messages of strangers to the coordinator; returns how many there were."""
    c = Choices(data)
    how = c.byte()
    rig = CoordinatorRig(ready=bool(how & 1))
    for peer in PEERS[:2]:
        rig.hear(peer, rig.numbered(_control(Kind.HELLO, Hello(peer.ljust(16, b"."), 2, "host").pack())))
        rig.hear(peer, rig.numbered(_control(Kind.NEXT)))
    heard = 0
    while c.more:
        who = c.byte()
        peer, frames = PEERS[who & 3], mutated(c, CONTROL_SEEDS)
        if who & 8 and peer in rig.assigned:
            frames = about(rig.assigned[peer], frames)
        rig.hear(peer, spare(rig.numbered(frames) if who & 4 else frames, FIRST))
        heard += 1
        if heard & 7 == 0:
            rig.heartbeat()
        if heard == 12 and how & 2:
            rig.coordinator.configured()
    rig.conclude()
    return heard
