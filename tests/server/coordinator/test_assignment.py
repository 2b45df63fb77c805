"""The coordinator hands out each simulation, and hands it out again after a failed attempt."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from talk import Talk, heartbeat

from penstock_client.payloads import Assign, Finish, Hello, Outcome
from penstock_client.reasons import Reason
from penstock_client.wire import ANY_SIMULATION, Kind
from penstock_server.coordinator import Coordinator, Point, make_welcome
from penstock_server.coordinator.assignments import LATE_SECONDS
from penstock_server.network import Assignment
from penstock_server.telemetry import EventLog, ServerRun


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
    talk.tick(0.5)
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


def test_a_solver_that_ends_without_streaming_has_failed(talk: Talk) -> None:
    talk.hello(b"a")
    simulation, attempt = talk.assigned(b"a")
    talk.finish(b"a", simulation, attempt, Outcome.EXITED)
    for _ in range(3):
        talk.finish(b"a", *talk.assigned(b"a"))
    talk.finish(b"a", *talk.assigned(b"a"), Outcome.EXITED)
    assert "without finishing its stream" in talk.coordinator.failures()[simulation]


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


def test_trainer_ranks_take_the_pieces_of_a_failed_attempt_for_a_while(talk: Talk) -> None:
    talk.hello(b"a")
    finished = talk.assigned(b"a")
    talk.finish(b"a", *finished)
    failed = talk.assigned(b"a")
    talk.finish(b"a", *failed, Outcome.FAILED, "boom")
    begun = [Assignment(*finished, ""), Assignment(*finished, "", over=True), Assignment(*failed, "")]
    assert talk.assignments == begun
    talk.tick(LATE_SECONDS - 1)
    assert talk.assignments == begun
    talk.tick(LATE_SECONDS + 1)
    assert talk.assignments == [*begun, Assignment(*failed, "", over=True)]
