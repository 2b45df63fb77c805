"""The coordinator by itself: messages in, messages out."""

from __future__ import annotations

import re
import statistics
import time
from pathlib import Path

import pytest

from penstock_client.payloads import Accept, Alive, Announce, Assign, FieldAnnouncement, Finish, Hello, Outcome, Refuse
from penstock_client.reasons import Reason
from penstock_client.wire import ANY_SIMULATION, Dtype, Header, Kind, unpack
from penstock_server.coordinator import Coordinator, Point, make_welcome
from penstock_server.study import Schema
from penstock_server.telemetry import EventLog, Metrics, ServerRun

T_FIELD = FieldAnnouncement("T", Dtype.FLOAT32, 1, (4, 4))


@pytest.fixture
def events(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "events.jsonl")


@pytest.fixture
def make_study(heat_study):
    """A study of few retries and short time-outs; keyword arguments are tables laid over it."""

    def make(**changes):
        base = {"solver": {"retries": 1, "wall_time": 100.0}, "server": {"client_timeout": 10.0}}
        return heat_study(**{name: {**base.get(name, {}), **changes.get(name, {})} for name in base | changes})

    return make


class Talk:
    """A coordinator and the peers that speak to it."""

    def __init__(self, events: EventLog, study, spares=()) -> None:
        self.schemas: list[Schema] = []
        self.ready = True
        self.metrics = Metrics("coordinator", "test")
        self.numbers: dict[bytes, int] = {}
        self.now = 0.0
        self.coordinator = Coordinator(
            [Point((float(i),) * 5, validation=i >= 3) for i in range(4)],
            make_welcome(study, ("data",)),
            study,
            ServerRun(7, events, self.metrics),
            on_schema=lambda schema: self.schemas.append(schema) or self.ready,
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
        replies = self.coordinator.handle(peer, [Header(kind, **base).pack(), payload], now)
        return [(p, unpack(f[0]), f[1]) for p, f in replies]

    def hello(self, peer: bytes, pid: int = 1, now: float = 0.0) -> None:
        ((_, header, _),) = self.say(
            peer, Kind.HELLO, Hello(peer.ljust(16, b"."), pid, "host").pack(), ANY_SIMULATION, now=now
        )
        assert header.kind is Kind.WELCOME

    def tick(self, now: float) -> list:
        """Let time pass until then, a tick every second as the control socket's thread does."""
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


@pytest.fixture
def talk(events: EventLog, make_study) -> Talk:
    return Talk(events, make_study())


def test_held_out_simulations_come_first_then_the_rest_in_order(talk: Talk) -> None:
    talk.hello(b"a")
    given = []
    for _ in range(4):
        simulation, attempt = talk.assigned(b"a")
        given.append(simulation)
        talk.finish(b"a", simulation, attempt)
    assert given == [3, 0, 1, 2]
    ((_, header, _),) = talk.say(b"a", Kind.NEXT, simulation=ANY_SIMULATION)
    assert header.kind is Kind.NO_MORE
    assert talk.coordinator.production_over


def test_a_worker_without_work_waits_until_the_last_simulation_is_safe(talk: Talk) -> None:
    for name in (b"a", b"b", b"c", b"d", b"e"):
        talk.hello(name)
    held = [(name, *talk.assigned(name)) for name in (b"a", b"b", b"c", b"d")]
    assert talk.say(b"e", Kind.NEXT, simulation=ANY_SIMULATION) == []
    for name, simulation, attempt in held[:-1]:
        talk.finish(name, simulation, attempt)
    replies = talk.finish(*held[-1], Outcome.FAILED, "diverged")
    assert [(p, h.kind) for p, h, _ in replies] == [(b"d", Kind.FINISHED), (b"e", Kind.ASSIGN)]
    assert Assign.unpack(replies[1][2]).parameters == (float(held[-1][1]),) * 5


def test_a_failing_simulation_is_tried_again_and_then_given_up_with_its_last_words(talk: Talk) -> None:
    talk.hello(b"a")
    first = talk.assigned(b"a")
    talk.finish(b"a", *first, Outcome.FAILED, "boom")
    for _ in range(3):
        talk.finish(b"a", *talk.assigned(b"a"))
    again = talk.assigned(b"a")
    assert again == (first[0], first[1] + 1)
    talk.finish(b"a", *again, Outcome.FAILED, "boom again")
    counts = talk.coordinator.counts()
    assert (counts.finished, counts.failed, counts.restarted) == (3, 1, 1)
    assert talk.coordinator.failures() == {first[0]: "boom again"}
    assert talk.coordinator.production_over


SPARES = [Point((float(i),) * 5, validation=False) for i in (100, 101)]


def fail_all(talk: Talk, bad: set[int]) -> list[int]:
    """Serve every simulation there is, those in `bad` badly; returns the ids in the order in which they were handed out."""
    out = []
    while talk.coordinator.has_waiting:
        simulation, attempt = talk.assigned(b"a")
        out.append(simulation)
        outcome = Outcome.FAILED if simulation in bad else Outcome.FINISHED
        talk.finish(b"a", simulation, attempt, outcome, "boom" if simulation in bad else "")
    return out


def test_a_failed_simulation_is_replaced_by_another_point_under_a_new_id(events, make_study) -> None:
    talk = Talk(events, make_study(), spares=SPARES)
    talk.hello(b"a")
    assert fail_all(talk, {1, 3}) == [3, 0, 1, 2, 3, 1, 4]  # the held-out 3 is not replaced, 1 is
    counts = talk.coordinator.counts()
    assert (counts.requested, counts.finished, counts.failed, counts.redrawn, counts.restarted) == (4, 3, 1, 1, 2)
    assert talk.coordinator.failures() == {1: "boom", 3: "boom"}
    assert talk.coordinator.production_over
    # What the failed one had sent before it failed stays in the accounts.
    assert talk.coordinator.expected({1: 3, 3: 2}.__getitem__) == 5 + 5 + 5 + 3


def test_the_replacement_is_at_the_next_spare_point_and_as_many_are_replaced_as_there_are(events, make_study) -> None:
    talk = Talk(events, make_study(solver={"retries": 0}), spares=SPARES)
    talk.hello(b"a")
    for expected in (3, 0, 1, 2):
        simulation, attempt = talk.assigned(b"a")
        assert simulation == expected
        talk.finish(b"a", simulation, attempt, Outcome.FAILED, "boom")
    for number, point in ((4, 100.0), (5, 101.0)):
        ((_, header, payload),) = talk.say(b"a", Kind.NEXT, simulation=ANY_SIMULATION)
        assert (header.simulation, header.attempt) == (number, 1)
        assert Assign.unpack(payload) == Assign((point,) * 5, False)
        talk.finish(b"a", number, 1, Outcome.FAILED, "boom")
    counts = talk.coordinator.counts()
    assert (counts.requested, counts.failed, counts.redrawn) == (4, 4, 2)
    assert talk.coordinator.production_over


def test_a_later_incarnation_takes_up_failures_replacements_and_the_order_of_the_rest(events, make_study) -> None:
    talk = Talk(events, make_study(solver={"retries": 0}), spares=SPARES)
    talk.hello(b"a")
    for outcome in (Outcome.FINISHED, Outcome.FAILED):  # the held-out 3, then 0, which 4 replaces
        talk.finish(b"a", *talk.assigned(b"a"), outcome, "boom")
    assert talk.assigned(b"a") == (1, 1)  # under way
    state = talk.coordinator.state_dict()
    arrived = {0: 2, 1: 1, 2: 0, 3: 5, 4: 0}.__getitem__
    for again, attempt, restarted in (((), 2, 1), ((1,), 1, 0)):
        later = Talk(events, make_study(solver={"retries": 0}), spares=SPARES)
        later.coordinator.load_state_dict(state, arrived, again=again)
        later.hello(b"a")
        for expected in ((1, attempt), (2, 1), (4, 1)):
            assert later.assigned(b"a") == expected
            later.finish(b"a", *expected)
        counts = later.coordinator.counts()
        assert (counts.finished, counts.failed, counts.redrawn, counts.restarted) == (4, 0, 1, restarted)
        assert later.coordinator.failures() == {0: "boom"}
        assert later.coordinator.production_over


def test_a_simulation_handed_back_is_not_a_failure(talk: Talk) -> None:
    talk.hello(b"a")
    simulation, attempt = talk.assigned(b"a")
    for _ in range(5):
        talk.finish(b"a", simulation, attempt, Outcome.RETURNED)
        again, attempt = talk.assigned(b"a")
        assert again == simulation
    assert talk.coordinator.counts().failed == 0


def test_who_leaves_while_it_waits_or_before_it_knows_what_it_got_costs_nothing(talk: Talk, tmp_path: Path) -> None:
    for name in (b"a", b"b", b"c", b"d", b"waits", b"other"):
        talk.hello(name)
    held = {name: talk.assigned(name) for name in (b"a", b"b", b"c", b"d")}
    for name in (b"waits", b"other"):
        assert talk.say(name, Kind.NEXT, simulation=ANY_SIMULATION) == []
    returned = Finish(Outcome.RETURNED, 1, 0, "", 0.5).pack()
    replies = talk.say(b"waits", Kind.FINISH, returned, ANY_SIMULATION)
    assert [(p, h.kind) for p, h, _ in replies] == [(b"waits", Kind.FINISHED)]
    # One that holds a simulation, whether its answer has reached it or not: the next in turn is given it, and not who has left.
    replies = talk.say(b"a", Kind.FINISH, returned, ANY_SIMULATION)
    assert [(p, h.kind) for p, h, _ in replies] == [(b"a", Kind.FINISHED), (b"other", Kind.ASSIGN)]
    assert (replies[1][1].simulation, replies[1][1].attempt) == (held[b"a"][0], 2)
    counts = talk.coordinator.counts()
    assert (counts.running, counts.failed, talk.coordinator.blocked_seconds) == (4, 0, 1.0)
    for name, (simulation, attempt) in {**held, b"other": (held[b"a"][0], 2)}.items():
        heartbeat(talk, name, simulation, attempt, 8.0) if name != b"a" else None
    talk.tick(15.0)
    log = (tmp_path / "events.jsonl").read_text()
    assert ('"client_lost"' in log, '"failed"' in log) == (False, False)
    assert (
        talk.refusal(talk.say(b"b", Kind.FINISH, Finish(Outcome.FAILED, 1, 0, "", 0.0).pack(), ANY_SIMULATION))[0]
        is Reason.MALFORMED
    )


def test_a_silent_client_loses_what_it_held(talk: Talk) -> None:
    talk.hello(b"a")
    held = talk.assigned(b"a")
    talk.hello(b"b", now=9.0)
    assert talk.tick(10.5) == []
    assert talk.coordinator.counts().running == 0
    given = []
    for _ in range(4):
        given.append(talk.assigned(b"b", now=11.0))
        talk.finish(b"b", *given[-1])
    assert (held[0], held[1] + 1) in given
    # On the connection it had, and on another one: its simulation may be another client's.
    assert talk.refusal(talk.say(b"a", Kind.FINISH, simulation=held[0], attempt=held[1]))[0] is Reason.NO_HELLO
    for peer in (b"a", b"a2"):
        reason, text = talk.refusal(talk.say(peer, Kind.HELLO, Hello(b"a".ljust(16, b"."), 1, "host").pack()))
        assert (reason, "connect again" in text) == (Reason.GIVEN_UP, True)


def test_a_dead_worker_process_loses_what_it_held(talk: Talk) -> None:
    talk.hello(b"a", pid=4321)
    talk.hello(b"b", pid=77)
    talk.assigned(b"a")
    talk.coordinator.worker_exited("another host", 4321, "exit code -9")
    assert talk.coordinator.counts().running == 1
    talk.coordinator.worker_exited("host", 4321, "exit code -9")
    assert talk.coordinator.counts().running == 0
    talk.coordinator.worker_exited("host", 4321, "again")  # told twice: nothing more to lose
    assert talk.coordinator.given_up() == ()


def test_heartbeats_tell_an_outdated_attempt_to_abandon(talk: Talk) -> None:
    talk.hello(b"a")
    simulation, attempt = talk.assigned(b"a")

    def abandon(attempt: int) -> bool:
        ((_, header, payload),) = talk.say(b"h", Kind.HEARTBEAT, b"a".ljust(16, b"."), simulation, attempt)
        assert header.kind is Kind.ALIVE
        return Alive.unpack(payload).abandon

    assert not abandon(attempt)
    assert abandon(attempt - 1)
    talk.coordinator.stop()
    assert abandon(attempt)


def test_another_incarnation_is_refused_and_counted(talk: Talk) -> None:
    ((_, header, payload),) = talk.say(b"a", Kind.HELLO, Hello(b"x" * 16, 1, "h").pack(), incarnation=6)
    assert header.kind is Kind.REFUSE
    refuse = Refuse.unpack(payload)
    assert refuse.reason is Reason.INCARNATION
    assert "incarnation 7" in refuse.text
    assert talk.metrics.refusals() == {"incarnation": 1}


def test_late_words_of_an_older_attempt_are_refused_counted_and_change_nothing(talk: Talk) -> None:
    talk.hello(b"a")
    talk.hello(b"b")
    simulation, attempt = talk.assigned(b"a")
    talk.finish(b"a", simulation, attempt, Outcome.RETURNED)
    assert talk.assigned(b"b") == (simulation, attempt + 1)
    for outcome in (Outcome.FINISHED, Outcome.FAILED, Outcome.RETURNED):
        ((_, header, payload),) = talk.finish(b"a", simulation, attempt, outcome)
        assert header.kind is Kind.REFUSE
        assert Refuse.unpack(payload).reason is Reason.STALE_ATTEMPT
    ((_, header, payload),) = talk.say(b"a", Kind.ANNOUNCE, Announce((T_FIELD,)).pack(), simulation, attempt)
    assert Refuse.unpack(payload).reason is Reason.STALE_ATTEMPT
    assert talk.metrics.refusals() == {"stale_attempt": 4}
    counts = talk.coordinator.counts()
    assert (counts.running, counts.finished, counts.failed) == (1, 0, 0)


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("nothing", []),
        ("one frame", [b""]),
        ("short header", [b"PNSK", b""]),
        ("other magic", [b"X" * 64, b""]),
        ("three frames", [Header(Kind.NEXT, 7).pack(), b"", b""]),
        ("truncated hello", [Header(Kind.HELLO, 7).pack(), b"abc"]),
    ],
)
def test_garbage_is_refused_as_malformed(talk: Talk, name: str, frames: list[bytes]) -> None:
    ((_, (header, payload)),) = talk.coordinator.handle(b"a", frames, 0.0)
    assert unpack(header).kind is Kind.REFUSE, name
    assert Refuse.unpack(payload).reason is Reason.MALFORMED


@pytest.mark.parametrize(
    ("name", "fields", "reason", "text"),
    [
        ("unknown", (T_FIELD, FieldAnnouncement("U", Dtype.FLOAT32, 3, (4,))), Reason.UNKNOWN_FIELD, "field 'U': the study has T"),
        ("missing", (), Reason.SCHEMA, "field T was not announced"),
        ("empty", (FieldAnnouncement("T", Dtype.FLOAT32, 1, (0,)),), Reason.SCHEMA, r"announced as FLOAT32 \(0,\)"),
        ("static", (T_FIELD, FieldAnnouncement("x", Dtype.FLOAT64, 1, (4,), True)), Reason.UNKNOWN_FIELD, "static field 'x'"),
    ],
)  # fmt: skip
def test_fields_that_the_study_does_not_have_are_refused(talk: Talk, name, fields, reason, text) -> None:
    talk.hello(b"a")
    simulation, attempt = talk.assigned(b"a")
    ((_, header, payload),) = talk.say(b"a", Kind.ANNOUNCE, Announce(fields).pack(), simulation, attempt)
    assert header.kind is Kind.REFUSE, name
    refuse = Refuse.unpack(payload)
    assert refuse.reason is reason
    assert re.search(text, refuse.text), refuse.text


def test_the_first_announcement_fixes_what_later_ones_must_agree_with(talk: Talk) -> None:
    talk.hello(b"a")
    simulation, attempt = talk.assigned(b"a")
    ((_, header, payload),) = talk.say(b"a", Kind.ANNOUNCE, Announce((T_FIELD,)).pack(), simulation, attempt)
    assert header.kind is Kind.ACCEPT
    assert Accept.unpack(payload).ids == (0,)
    assert len(talk.schemas) == 1
    finer = FieldAnnouncement("T", Dtype.FLOAT32, 1, (8, 8))
    ((_, header, payload),) = talk.say(b"a", Kind.ANNOUNCE, Announce((finer,)).pack(), simulation, attempt)
    assert "(8, 8) x 1, the study's first client announced float32 (4, 4) x 1" in Refuse.unpack(payload).text
    assert len(talk.schemas) == 1


def test_an_announcement_is_answered_when_the_trainer_ranks_are_ready_and_heartbeats_meanwhile(talk: Talk) -> None:
    talk.ready = False
    talk.hello(b"a")
    simulation, attempt = talk.assigned(b"a")
    assert talk.say(b"a", Kind.ANNOUNCE, Announce((T_FIELD,)).pack(), simulation, attempt) == []
    ((_, header, _),) = talk.say(b"h", Kind.HEARTBEAT, b"a".ljust(16, b"."), simulation, attempt)
    assert header.kind is Kind.ALIVE
    ((peer, (frame, _)),) = talk.coordinator.configured()
    assert (peer, unpack(frame).kind) == (b"a", Kind.ACCEPT)


def test_components_come_from_the_study_file_where_a_client_sends_plain_arrays(events: EventLog, make_study) -> None:
    talk = Talk(events, make_study(fields={"T": None, "U": {"components": 3}}))
    talk.hello(b"a")
    simulation, attempt = talk.assigned(b"a")
    plain = FieldAnnouncement("U", Dtype.FLOAT64, 1, (9, 3))
    talk.say(b"a", Kind.ANNOUNCE, Announce((plain,)).pack(), simulation, attempt)
    (field,) = talk.schemas[0].spec.fields
    assert (field.shape, field.components) == ((9,), 3)


def test_a_solver_that_ends_without_streaming_has_failed(talk: Talk) -> None:
    talk.hello(b"a")
    simulation, attempt = talk.assigned(b"a")
    talk.finish(b"a", simulation, attempt, Outcome.EXITED)
    for _ in range(3):
        talk.finish(b"a", *talk.assigned(b"a"))
    talk.finish(b"a", *talk.assigned(b"a"), Outcome.EXITED)
    assert "without finishing its stream" in talk.coordinator.failures()[simulation]


def test_what_had_finished_is_taken_up_by_a_later_incarnation_only_with_all_its_samples(
    events: EventLog, make_study, talk
) -> None:
    talk.hello(b"a")
    for _ in range(3):
        talk.finish(b"a", *talk.assigned(b"a"))
    state = talk.coordinator.state_dict()
    later = Talk(events, make_study())
    later.coordinator.load_state_dict(state, {3: 5, 0: 5, 1: 4}.__getitem__)
    later.hello(b"a")
    later.hello(b"b")
    assert [later.assigned(name) for name in (b"a", b"b")] == [(1, 2), (2, 1)]


def repeated(talk: Talk, peer: bytes, kind: Kind, payload: bytes = b"", simulation: int = 0, attempt: int = 0):
    """What the peer's latest request is answered when it comes once more."""
    return talk.say(peer, kind, payload, simulation, attempt, offset=talk.numbers[peer])


def test_a_repeated_request_is_answered_as_before_and_does_nothing_else(talk: Talk) -> None:
    talk.hello(b"a")
    first = talk.say(b"a", Kind.NEXT, simulation=ANY_SIMULATION)
    assert repeated(talk, b"a", Kind.NEXT, simulation=ANY_SIMULATION) == first
    simulation, attempt = first[0][1].simulation, first[0][1].attempt
    announce = Announce((T_FIELD,)).pack()
    accepted = talk.say(b"a", Kind.ANNOUNCE, announce, simulation, attempt)
    assert repeated(talk, b"a", Kind.ANNOUNCE, announce, simulation, attempt) == accepted
    finish = Finish(Outcome.FAILED, 1, 5, "boom", 2.5).pack()
    finished = talk.say(b"a", Kind.FINISH, finish, simulation, attempt)
    for _ in range(3):
        assert repeated(talk, b"a", Kind.FINISH, finish, simulation, attempt) == finished
    assert talk.coordinator.blocked_seconds == 2.5
    assert talk.coordinator.counts().failed == 0  # one of two attempts
    refused = talk.say(b"a", Kind.FINISH, finish, 99, 1)
    assert repeated(talk, b"a", Kind.FINISH, finish, 99, 1) == refused
    assert sum(talk.metrics.refusals().values()) == 1
    reason, text = talk.refusal(talk.say(b"a", Kind.NEXT, offset=1))
    assert (reason, "request number 1 after 5" in text) == (Reason.MALFORMED, True)


def test_a_worker_that_asks_again_while_it_waits_has_one_place_and_keeps_it(talk: Talk) -> None:
    for name in (b"a", b"b", b"c", b"d", b"e"):
        talk.hello(name)
    held = [(name, *talk.assigned(name)) for name in (b"a", b"b", b"c", b"d")]
    assert talk.say(b"e", Kind.NEXT, simulation=ANY_SIMULATION) == []
    assert repeated(talk, b"e", Kind.NEXT, simulation=ANY_SIMULATION) == []
    # Over a new connection: unknown at first, then as before.
    talk.numbers[b"e2"] = talk.numbers[b"e"]
    assert talk.refusal(repeated(talk, b"e2", Kind.NEXT, simulation=ANY_SIMULATION))[0] is Reason.NO_HELLO
    ((_, header, _),) = talk.say(b"e2", Kind.HELLO, Hello(b"e".ljust(16, b"."), 1, "host").pack(), offset=0)
    assert header.kind is Kind.WELCOME
    assert repeated(talk, b"e2", Kind.NEXT, simulation=ANY_SIMULATION) == []
    replies = talk.finish(*held[0], Outcome.FAILED, "boom")
    assert [(p, h.kind) for p, h, _ in replies] == [(b"a", Kind.FINISHED), (b"e2", Kind.ASSIGN)]
    replies = talk.finish(*held[1], Outcome.FAILED, "boom")
    assert [h.kind for _, h, _ in replies] == [Kind.FINISHED]


def test_hello_over_another_connection_keeps_what_a_client_holds(talk: Talk) -> None:
    talk.hello(b"a")
    held = talk.assigned(b"a")
    talk.say(b"a2", Kind.HELLO, Hello(b"a".ljust(16, b"."), 1, "host").pack(), offset=0)
    talk.numbers[b"a2"] = talk.numbers[b"a"]
    ((peer, header, _),) = talk.finish(b"a2", *held)
    assert (peer, header.kind) == (b"a2", Kind.FINISHED)
    assert talk.coordinator.counts().finished == 1


def test_a_client_serves_one_simulation_at_a_time(talk: Talk) -> None:
    talk.hello(b"a")
    first = talk.assigned(b"a")
    second = talk.assigned(b"a")
    assert second != first
    assert talk.coordinator.counts().running == 1
    for _ in range(3):
        talk.finish(b"a", *second)
        second = talk.assigned(b"a")
    assert second == (first[0], first[1] + 1)


def heartbeat(talk: Talk, client: bytes, simulation: int, attempt: int, now: float):
    return talk.say(b"beat", Kind.HEARTBEAT, client.ljust(16, b"."), simulation, attempt, now=now)


@pytest.mark.parametrize("named", ["none", "the one before"])
def test_a_client_whose_heartbeats_name_another_simulation_than_it_holds_is_given_up(talk: Talk, named: str) -> None:
    talk.hello(b"a", pid=31)
    before = talk.assigned(b"a")
    talk.finish(b"a", *before)
    talk.assigned(b"a", now=1.0)
    says = before if named == "the one before" else (ANY_SIMULATION, 0)
    for now in (2.0, 7.0, 11.0):
        heartbeat(talk, b"a", *says, now)
        talk.tick(now)
        assert talk.coordinator.counts().running == 1
    heartbeat(talk, b"a", *says, 12.5)
    talk.tick(12.5)
    assert talk.coordinator.counts().running == 0
    assert talk.coordinator.given_up() == (("host", 31),)
    assert talk.refusal(heartbeat(talk, b"a", *says, 13.0))[0] is Reason.GIVEN_UP


def test_a_heartbeat_that_was_on_its_way_does_not_count_against_a_client(talk: Talk) -> None:
    talk.hello(b"a")
    held = talk.assigned(b"a")
    for now in range(0, 60, 2):
        heartbeat(talk, b"a", *((ANY_SIMULATION, 0) if now % 8 == 0 else held), float(now))
        talk.tick(float(now))
    assert talk.coordinator.counts().running == 1


def test_the_time_in_which_the_server_was_stopped_is_nobodys_silence(talk: Talk) -> None:
    talk.hello(b"a")
    held = talk.assigned(b"a")
    talk.tick(9.0)
    talk.now = 500.0  # without a tick
    talk.coordinator.tick(500.0)
    assert talk.coordinator.counts().running == 1
    talk.tick(500.9)
    assert talk.coordinator.counts().running == 1
    talk.tick(503.0)
    assert talk.coordinator.counts().running == 0
    assert talk.refusal(heartbeat(talk, b"a", *held, 503.0))[0] is Reason.GIVEN_UP


def test_given_up_processes_are_named_until_they_end_or_come_back(talk: Talk) -> None:
    for name, pid in ((b"a", 11), (b"b", 12), (b"c", 13)):
        talk.hello(name, pid=pid)
        talk.assigned(name)
    talk.tick(11.0)
    assert talk.coordinator.given_up() == (("host", 11), ("host", 12), ("host", 13))
    talk.coordinator.worker_exited("host", 12, "killed")
    talk.hello(b"another", pid=13, now=12.0)
    assert talk.coordinator.given_up() == (("host", 11),)


def test_clients_that_fall_silent_together_are_not_given_each_others_simulations(talk: Talk) -> None:
    for name in (b"a", b"b", b"c", b"d", b"e"):
        talk.hello(name)
    for name in (b"a", b"b", b"c", b"d"):
        talk.assigned(name)
    assert talk.say(b"e", Kind.NEXT, simulation=ANY_SIMULATION) == []
    assert talk.tick(11.0) == []
    talk.hello(b"f", now=12.0)
    for _ in range(4):
        simulation, attempt = talk.assigned(b"f", now=12.0)
        assert attempt == 2
        talk.finish(b"f", simulation, attempt)


def test_the_silence_of_who_has_nothing_left_to_do_is_no_loss(talk: Talk, tmp_path: Path) -> None:
    """A solver rank that has done its part, while others go on; a worker that was told there is nothing more."""
    for name in (b"w", b"r0", b"r1"):
        talk.hello(name)
    simulation, attempt = talk.assigned(b"w")
    for name in (b"r0", b"r1"):
        ((_, header, _),) = talk.say(name, Kind.NEXT, simulation=simulation, attempt=attempt)
        assert header.kind is Kind.ASSIGN
    done = Finish(Outcome.FINISHED, 2, 5, "", 0.0).pack()
    talk.say(b"r0", Kind.FINISH, done, simulation, attempt, rank=0)
    for name in (b"w", b"r1"):
        heartbeat(talk, name, simulation, attempt, 9.0)
    talk.tick(11.0)
    assert talk.coordinator.counts().running == 1
    talk.say(b"r1", Kind.FINISH, done, simulation, attempt, rank=1, now=11.0)
    assert talk.coordinator.counts().finished == 1
    for _ in range(3):
        talk.finish(b"w", *talk.assigned(b"w", now=11.0))
    ((_, header, _),) = talk.say(b"w", Kind.NEXT, simulation=ANY_SIMULATION, now=11.0)
    assert header.kind is Kind.NO_MORE
    talk.tick(100.0)
    assert talk.coordinator.given_up() == ()
    assert '"client_lost"' not in (tmp_path / "events.jsonl").read_text()


def test_a_simulation_that_runs_too_long_has_failed_and_is_abandoned(talk: Talk) -> None:
    talk.hello(b"a", now=0.0)
    held = talk.assigned(b"a")
    for now in range(0, 155, 5):  # the wall time is 100 s; a worker has some time to enforce it by itself
        heartbeat(talk, b"a", *held, float(now))
        assert talk.coordinator.counts().running == 1
    heartbeat(talk, b"a", *held, 156.0)
    talk.tick(156.0)
    assert talk.coordinator.counts().running == 0
    ((_, _, payload),) = heartbeat(talk, b"a", *held, 157.0)
    assert Alive.unpack(payload).abandon
    talk.tick(160.0)
    assert talk.coordinator.given_up() == ()
    for now in (163.0, 168.0):  # it does not abandon it: it is stuck
        heartbeat(talk, b"a", *held, now)
        talk.tick(now)
    assert talk.coordinator.given_up() == (("host", 1),)


def test_what_an_attempt_says_that_has_been_given_up_is_refused_and_counted(talk: Talk) -> None:
    for name in (b"w", b"rank"):
        talk.hello(name)
    simulation, attempt = talk.assigned(b"w")
    talk.say(b"rank", Kind.NEXT, simulation=simulation, attempt=attempt)
    heartbeat(talk, b"w", simulation, attempt, 9.0)
    talk.tick(11.0)  # the solver rank is silent: the attempt has failed
    talk.hello(b"other", now=11.0)
    for _ in range(3):
        talk.finish(b"other", *talk.assigned(b"other", now=11.0))
    assert talk.assigned(b"other", now=11.0) == (simulation, attempt + 1)
    for outcome in (Outcome.FINISHED, Outcome.FAILED, Outcome.RETURNED):
        assert talk.refusal(talk.finish(b"w", simulation, attempt, outcome))[0] is Reason.STALE_ATTEMPT
    assert talk.metrics.refusals() == {"stale_attempt": 3}
    assert talk.coordinator.counts().running == 1


def test_a_worker_that_is_lost_with_its_solver_ranks_fails_its_simulation_once(talk: Talk) -> None:
    for name in (b"w", b"rank0", b"rank1"):
        talk.hello(name)
    simulation, attempt = talk.assigned(b"w")
    for name in (b"rank0", b"rank1"):
        talk.say(name, Kind.NEXT, simulation=simulation, attempt=attempt)
    talk.tick(11.0)
    assert talk.coordinator.wanted_workers == 4
    talk.hello(b"other", now=11.0)
    held = [talk.assigned(b"other", now=11.0)]
    while talk.coordinator.has_waiting:
        talk.finish(b"other", *held[-1])
        held.append(talk.assigned(b"other", now=11.0))
    assert sorted(held) == sorted([(simulation, attempt + 1), *((i, 1) for i in range(4) if i != simulation)])
    assert talk.coordinator.failures() == {}


def test_what_a_message_costs_does_not_grow_with_the_number_of_simulations(events: EventLog, make_study) -> None:
    class Counting(list):
        """A plan that counts how often anything in it is looked at."""

        looks = 0

        def __getitem__(self, at):
            self.looks += 1
            return super().__getitem__(at)

        def __iter__(self):
            self.looks += len(self)
            return super().__iter__()

    medians, looks = [], []
    for number in (1_000, 100_000):
        talk = Talk(events, make_study())
        talk.coordinator = Coordinator(
            [Point((0.0,) * 5, validation=False)] * number,
            make_welcome(make_study(), ("data",)),
            make_study(),
            ServerRun(7, events, talk.metrics),
            on_schema=lambda _: True,
        )
        table = talk.coordinator._simulations
        table._all = simulations = Counting(table._all)
        talk.hello(b"a")
        took = []
        for _ in range(200):
            begun = time.perf_counter()
            held = talk.assigned(b"a")
            heartbeat(talk, b"a", *held, 0.0)
            talk.finish(b"a", *held)
            assert not talk.coordinator.production_over
            assert talk.coordinator.counts().finished + talk.coordinator.wanted_workers == number
            talk.tick(0.0)
            talk.coordinator.worker_exited("host", 4321, "")
            took.append(time.perf_counter() - begun)
        medians.append(statistics.median(took))
        looks.append(simulations.looks)
    assert looks[0] == looks[1]
    assert medians[1] < 3 * medians[0]


def test_a_connection_stands_for_one_client_at_a_time(talk: Talk) -> None:
    for number in range(100):
        talk.say(b"p", Kind.HELLO, Hello(number.to_bytes(16, "little"), 1, "host").pack(), ANY_SIMULATION)
    assert len(list(talk.coordinator._clients)) == 1
    held = talk.assigned(b"p")
    talk.hello(b"p")  # what the one before held is handed out again
    given = []
    for _ in range(4):
        given.append(talk.assigned(b"p"))
        talk.finish(b"p", *given[-1])
    assert (held[0], held[1] + 1) in given


def test_a_later_request_takes_the_place_of_one_that_waits_for_its_answer(talk: Talk) -> None:
    talk.ready = False
    talk.hello(b"a")
    held = talk.assigned(b"a")
    announce = Announce((T_FIELD,)).pack()
    for _ in range(100):
        assert talk.say(b"a", Kind.ANNOUNCE, announce, *held) == []
    ((_, header, _),) = talk.finish(b"a", *held, Outcome.RETURNED)
    assert header.kind is Kind.FINISHED
    assert talk.coordinator.configured() == []
    assert repeated(talk, b"a", Kind.FINISH, b"", *held)[0][1].kind is Kind.FINISHED


@pytest.mark.parametrize(("steps", "blocked"), [(2**63, 0.0), (5, float("nan")), (5, float("inf")), (5, -1.0)])
def test_an_end_that_cannot_be_is_refused(talk: Talk, steps: int, blocked: float) -> None:
    talk.hello(b"a")
    simulation, attempt = talk.assigned(b"a")
    finish = Finish(Outcome.FINISHED, 1, steps, "", blocked).pack()
    ((_, header, payload),) = talk.say(b"a", Kind.FINISH, finish, simulation, attempt)
    assert header.kind is Kind.REFUSE
    assert Refuse.unpack(payload).reason is Reason.MALFORMED
    assert talk.coordinator.counts().running == 1
    assert talk.coordinator.blocked_seconds == 0.0


def test_what_repeats_itself_does_not_fill_the_disk(talk: Talk, tmp_path: Path) -> None:
    for _ in range(3000):
        talk.coordinator.handle(b"a", [b"x" * 64, b""], 0.0)
    talk.hello(b"a")
    simulation, attempt = talk.assigned(b"a")
    talk.finish(b"a", simulation, attempt, Outcome.FAILED, "x" * 2**20)
    assert sum(talk.metrics.refusals().values()) == 3000
    assert (tmp_path / "events.jsonl").stat().st_size < 400_000


def test_a_large_heartbeat_is_refused(talk: Talk) -> None:
    ((_, (header, payload)),) = talk.coordinator.handle(b"a", [Header(Kind.HEARTBEAT, 7).pack(), bytes(2**17)], 0.0)
    assert unpack(header).kind is Kind.REFUSE
    assert Refuse.unpack(payload).reason is Reason.NO_HELLO
