"""Talk to a coordinator in messages, without sockets."""

from __future__ import annotations

from penstock_client.payloads import FieldAnnouncement, Finish, Hello, Outcome, Refuse
from penstock_client.reasons import Reason
from penstock_client.wire import ANY_SIMULATION, Dtype, Header, Kind, unpack
from penstock_server.coordinator import Coordinator, Point, make_welcome
from penstock_server.network import Assignment
from penstock_server.study import Schema
from penstock_server.telemetry import EventLog, Metrics, ServerRun

T_FIELD = FieldAnnouncement("T", Dtype.FLOAT32, 1, (4, 4))


class Talk:
    """A coordinator, and the messages of the peers that speak to it."""

    def __init__(self, events: EventLog, study, spares=()) -> None:
        self.schemas: list[Schema] = []
        self.ready = True
        self.metrics = Metrics("coordinator", "test")
        self.numbers: dict[bytes, int] = {}
        self.workers: dict[bytes, str] = {}  # names of the peers' keys
        self.now = 0.0
        self.assignments: list[Assignment] = []  # as the trainer ranks are told of them
        self.coordinator = Coordinator(
            [Point((float(i),) * 5, validation=i >= 3) for i in range(4)],
            make_welcome(study, ("data",)),
            study,
            ServerRun(7, events, self.metrics),
            on_schema=lambda schema: self.schemas.append(schema) or self.ready,
            on_assignment=lambda assignment: not self.assignments.append(assignment),
            spares=spares,
        )

    def say(self, peer: bytes, kind: Kind, payload: bytes = b"", simulation: int = 0, attempt: int = 0, **header):
        """Send one message, as the peer's next request; returns [(peer, header, payload)]."""
        if "offset" not in header:
            self.numbers[peer] = self.numbers.get(peer, 0) + 1
        base = {
            "incarnation": 7,
            "simulation": simulation,
            "attempt": attempt,
            "offset": self.numbers.get(peer),
            **header,
        }
        now = base.pop("now", self.now)
        self.tick(now)
        replies = self.coordinator.handle(peer, [Header(kind, **base).pack(), payload], now, self.workers.get(peer, ""))
        return [(p, unpack(f[0]), f[1]) for p, f in replies]

    def hello(self, peer: bytes, pid: int = 1, now: float = 0.0, worker: str = "") -> None:
        self.workers[peer] = worker
        ((_, header, _),) = self.say(
            peer, Kind.HELLO, Hello(peer.ljust(16, b"."), pid, "host").pack(), ANY_SIMULATION, now=now
        )
        assert header.kind is Kind.WELCOME

    def tick(self, now: float) -> list:
        """Let time pass until `now`, with a tick every second as in the control socket's thread; returns the messages sent."""
        out = []
        while self.now < now:
            self.now = min(self.now + 1, now)
            out += self.coordinator.tick(self.now)
        return out

    @staticmethod
    def refusal(replies) -> tuple[Reason, str]:
        ((_, header, payload),) = replies
        assert header.kind is Kind.REFUSE
        refuse = Refuse.unpack(payload)
        return refuse.reason, refuse.text

    def assigned(self, peer: bytes, now: float = 0.0) -> tuple[int, int]:
        ((_, header, _),) = self.say(peer, Kind.NEXT, simulation=ANY_SIMULATION, now=now)
        assert header.kind is Kind.ASSIGN
        return header.simulation, header.attempt

    def finish(
        self, peer: bytes, simulation: int, attempt: int, outcome: Outcome = Outcome.FINISHED, message: str = ""
    ):
        return self.say(peer, Kind.FINISH, Finish(outcome, 1, 5, message, 0.0).pack(), simulation, attempt)


SPARES = [Point((float(i),) * 5, validation=False) for i in (100, 101)]


def repeated(talk: Talk, peer: bytes, kind: Kind, payload: bytes = b"", simulation: int = 0, attempt: int = 0):
    """Send the peer's latest request again, under the same number; returns the answers."""
    return talk.say(peer, kind, payload, simulation, attempt, offset=talk.numbers[peer])


def heartbeat(talk: Talk, client: bytes, simulation: int, attempt: int, now: float):
    talk.workers[b"beat"] = talk.workers.get(client, "")
    return talk.say(b"beat", Kind.HEARTBEAT, client.ljust(16, b"."), simulation, attempt, now=now)
