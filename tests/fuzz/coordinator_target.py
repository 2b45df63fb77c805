"""Fuzz the coordinator with the messages of strangers, beside one client that sends only valid messages."""

from __future__ import annotations

import json
from pathlib import Path

from choices import Choices
from mutations import Frames, mutated, vector_messages
from server_checks import (
    ANNOUNCED,
    FIELDS,
    HELD_OUT,
    LIFE,
    MAX_REPLY,
    N_SIMULATIONS,
    PEERS,
    SCHEMAS,
    about,
    check_answers,
    held,
    spare,
)

from penstock_client.payloads import Announce, Assign, Finish, Hello, Outcome, Welcome
from penstock_client.wire import ANY_SIMULATION, Header, Kind, unpack
from penstock_server.coordinator import Coordinator, Point
from penstock_server.study import Schema, Study
from penstock_server.telemetry import EventLog, Metrics, ServerRun

FIRST = 7  # the simulation that the coordinator hands out first, to the valid client


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
    """An event log that keeps nothing, but checks how long each event is."""

    def __init__(self) -> None:
        super().__init__(Path("/dev/null"))
        self.lines = 0

    def write(self, event: str, **values: object) -> None:
        self.lines += 1
        assert len(repr(values)) <= 8 * MAX_REPLY, f"{event} of {len(repr(values))} characters"
        super().write(event, **values)

    def write_for(self, worker: str, event: str, **values: object) -> None:
        self.write(event, worker=worker, **values)


_EVENTS = _Nowhere()
_STUDY = Study.model_validate(
    {
        "study": {"name": "fuzz"},
        "parameters": {"a": [0.0, 10.0], "b": [0.0, 1.0]},
        "solver": {"adapter": "heat2d", "simulations": HELD_OUT, "validation_simulations": 1, "retries": 1000},
        "fields": FIELDS,
        "server": {"client_timeout": 1e9, "max_message": 2**62},
    }
)


class CoordinatorRig:
    """A coordinator, and one client that sends only valid messages and serves simulation FIRST."""

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
        """Send a request of the valid client; returns the kind of the answer, or None where it has to wait."""
        frames = self.numbered(frames)
        own = [unpack(f[0]).kind for to, f in self.coordinator.handle(b"valid", frames, 0.0) if to == b"valid"]
        return own[0] if own else None

    def numbered(self, frames: Frames) -> Frames:
        """Number the request in its header's offset, as a client does."""
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
        if self.schema in (None, SCHEMAS[1]):
            asked = self.ask(_control(Kind.ANNOUNCE, Announce(ANNOUNCED).pack(), FIRST, 1))
            assert asked in (Kind.ACCEPT, None), asked
        assert (
            self.ask(_control(Kind.FINISH, Finish(Outcome.FINISHED, 1, 3, "", 0.5).pack(), FIRST, 1)) is Kind.FINISHED
        )
        assert c.counts().finished == before.finished + 1
        json.dumps(c.state_dict(), allow_nan=False)


def coordinator(data: bytes) -> int:
    """Send messages of strangers to the coordinator; returns how many there were."""
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
