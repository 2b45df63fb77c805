"""The coordinator by itself: messages in, messages out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock_client.payloads import Accept, Alive, Announce, Assign, FieldAnnouncement, Finish, Hello, Outcome, Refuse
from penstock_client.reasons import Reason
from penstock_client.wire import ANY_SIMULATION, Dtype, Header, Kind, unpack
from penstock_server.agreement import Schema
from penstock_server.config import FieldSection, SamplesSection
from penstock_server.coordinator import Coordinator, Point
from penstock_server.events import EventLog
from penstock_server.plan import make_welcome

T_FIELD = FieldAnnouncement("T", Dtype.FLOAT32, 1, (4, 4))


@pytest.fixture
def events(tmp_path: Path) -> Iterator[EventLog]:
    log = EventLog(tmp_path / "events.jsonl")
    yield log
    log.close()


class Talk:
    """A coordinator and the peers that speak to it."""

    def __init__(self, events: EventLog, study, **changes) -> None:
        self.schemas: list[Schema] = []
        self.ready = True
        self.refused: list[Reason] = []
        self.coordinator = Coordinator(
            [Point((float(i),) * 5, validation=i >= 3) for i in range(4)],
            make_welcome(study, ("data",)),
            **{
                "incarnation": 7,
                "fields": {"T": FieldSection()},
                "samples": SamplesSection(),
                "retries": 1,
                "client_timeout": 10.0,
                "on_schema": lambda schema: self.schemas.append(schema) or self.ready,
                "on_refused": self.refused.append,
                "events": events,
                **changes,
            },
        )

    def say(self, peer: bytes, kind: Kind, payload: bytes = b"", simulation: int = 0, attempt: int = 0, **header):
        """Send one message; returns [(peer, header, payload)]."""
        base = {"incarnation": 7, "simulation": simulation, "attempt": attempt, **header}
        now = base.pop("now", 0.0)
        replies = self.coordinator.handle(peer, [Header(kind, **base).pack(), payload], now)
        return [(p, unpack(f[0]), f[1]) for p, f in replies]

    def hello(self, peer: bytes, pid: int = 1, now: float = 0.0) -> None:
        ((_, header, _),) = self.say(
            peer, Kind.HELLO, Hello(peer.ljust(16, b"."), pid, "host").pack(), ANY_SIMULATION, now=now
        )
        assert header.kind is Kind.WELCOME

    def assigned(self, peer: bytes, now: float = 0.0) -> tuple[int, int]:
        ((_, header, _),) = self.say(peer, Kind.NEXT, simulation=ANY_SIMULATION, now=now)
        assert header.kind is Kind.ASSIGN
        return header.simulation, header.attempt

    def finish(
        self, peer: bytes, simulation: int, attempt: int, outcome: Outcome = Outcome.FINISHED, message: str = ""
    ):
        return self.say(peer, Kind.FINISH, Finish(outcome, 1, 5, message, 0.0).pack(), simulation, attempt)


@pytest.fixture
def talk(events: EventLog, heat_study) -> Talk:
    return Talk(events, heat_study())


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
    for name in (b"a", b"b"):
        talk.hello(name)
    held = [talk.assigned(b"a") for _ in range(4)]
    assert talk.say(b"b", Kind.NEXT, simulation=ANY_SIMULATION) == []
    for simulation, attempt in held[:-1]:
        talk.finish(b"a", simulation, attempt)
    replies = talk.finish(b"a", *held[-1], Outcome.FAILED, "diverged")
    assert [(p, h.kind) for p, h, _ in replies] == [(b"a", Kind.FINISHED), (b"b", Kind.ASSIGN)]
    assert Assign.unpack(replies[1][2]).parameters == (float(held[-1][0]),) * 5


def test_a_failing_simulation_is_tried_again_and_then_given_up_with_its_last_words(talk: Talk) -> None:
    talk.hello(b"a")
    first = talk.assigned(b"a")
    talk.finish(b"a", *first, Outcome.FAILED, "boom")
    others = [talk.assigned(b"a") for _ in range(3)]
    again = talk.assigned(b"a")
    assert again == (first[0], first[1] + 1)
    talk.finish(b"a", *again, Outcome.FAILED, "boom again")
    for simulation, attempt in others:
        talk.finish(b"a", simulation, attempt)
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


def test_a_failed_simulation_is_replaced_by_another_point_under_a_new_id(events, heat_study) -> None:
    talk = Talk(events, heat_study(), spares=SPARES)
    talk.hello(b"a")
    assert fail_all(talk, {1, 3}) == [3, 0, 1, 2, 3, 1, 4]  # the held-out 3 is not replaced, 1 is
    counts = talk.coordinator.counts()
    assert (counts.requested, counts.finished, counts.failed, counts.redrawn, counts.restarted) == (4, 3, 1, 1, 2)
    assert talk.coordinator.failures() == {1: "boom", 3: "boom"}
    assert talk.coordinator.production_over
    # What the failed one had sent before it failed stays in the accounts.
    assert talk.coordinator.expected({1: 3, 3: 2}.__getitem__) == 5 + 5 + 5 + 3


def test_the_replacement_is_at_the_next_spare_point_and_as_many_are_replaced_as_there_are(events, heat_study) -> None:
    talk = Talk(events, heat_study(), spares=SPARES, retries=0)
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


def test_a_later_incarnation_takes_up_failures_replacements_and_the_order_of_the_rest(events, heat_study) -> None:
    talk = Talk(events, heat_study(), spares=SPARES, retries=0)
    talk.hello(b"a")
    for outcome in (Outcome.FINISHED, Outcome.FAILED):  # the held-out 3, then 0, which 4 replaces
        talk.finish(b"a", *talk.assigned(b"a"), outcome, "boom")
    assert talk.assigned(b"a") == (1, 1)  # under way
    state = talk.coordinator.state_dict()
    arrived = {0: 2, 1: 1, 2: 0, 3: 5, 4: 0}.__getitem__
    for again, attempt, restarted in (((), 2, 1), ((1,), 1, 0)):
        later = Talk(events, heat_study(), spares=SPARES, retries=0)
        later.coordinator.load_state_dict(state, arrived, again=again)
        later.hello(b"a")
        assert [later.assigned(b"a") for _ in range(3)] == [(1, attempt), (2, 1), (4, 1)]
        for simulation in (1, 2, 4):
            later.finish(b"a", simulation, attempt if simulation == 1 else 1)
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


def test_a_silent_client_loses_what_it_held(talk: Talk) -> None:
    talk.hello(b"a")
    talk.hello(b"b", now=9.0)
    held = talk.assigned(b"a")
    assert talk.coordinator.tick(10.5) == []
    assert talk.coordinator.counts().running == 0
    given = [talk.assigned(b"b", now=11.0) for _ in range(4)]
    assert (held[0], held[1] + 1) in given
    ((_, header, payload),) = talk.say(b"a", Kind.NEXT, simulation=ANY_SIMULATION)
    assert header.kind is Kind.REFUSE
    assert "connect again" in Refuse.unpack(payload).text


def test_a_dead_worker_process_loses_what_it_held(talk: Talk) -> None:
    talk.hello(b"a", pid=4321)
    talk.hello(b"b", pid=77)
    talk.assigned(b"a")
    talk.coordinator.worker_exited(4321, "exit code -9")
    assert talk.coordinator.counts().running == 0
    talk.coordinator.worker_exited(4321, "again")  # told twice: nothing more to lose


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
    assert talk.refused == [Reason.INCARNATION]


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
    assert talk.refused == [Reason.STALE_ATTEMPT] * 4
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


def test_components_come_from_the_study_file_where_a_client_sends_plain_arrays(events: EventLog, heat_study) -> None:
    talk = Talk(events, heat_study(), fields={"U": FieldSection(components=3)})
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
    others = [talk.assigned(b"a") for _ in range(3)]
    again = talk.assigned(b"a")
    talk.finish(b"a", *again, Outcome.EXITED)
    assert "without finishing its stream" in talk.coordinator.failures()[simulation]
    assert len(others) == 3


def test_what_had_finished_is_taken_up_by_a_later_incarnation_only_with_all_its_samples(
    events: EventLog, heat_study, talk
) -> None:
    talk.hello(b"a")
    for _ in range(3):
        talk.finish(b"a", *talk.assigned(b"a"))
    state = talk.coordinator.state_dict()
    later = Talk(events, heat_study())
    later.coordinator.load_state_dict(state, {3: 5, 0: 5, 1: 4}.__getitem__)
    later.hello(b"a")
    assert [later.assigned(b"a") for _ in range(2)] == [(1, 2), (2, 1)]
