"""The coordinator answers a request that a client sends again, over the same connection or another."""

from __future__ import annotations

from talk import T_FIELD, Talk, repeated

from penstock_client.payloads import Announce, Finish, Hello, Outcome
from penstock_client.reasons import Reason
from penstock_client.wire import ANY_SIMULATION, Kind


def test_a_repeated_request_is_answered_as_before_and_does_nothing_else(talk: Talk) -> None:
    talk.hello(b"a")
    first = talk.say(b"a", Kind.NEXT, simulation=ANY_SIMULATION)
    assert repeated(talk, b"a", Kind.NEXT, simulation=ANY_SIMULATION) == first
    simulation, attempt = first[0][1].simulation, first[0][1].attempt
    announce = Announce((T_FIELD,)).pack()
    accepted = talk.say(b"a", Kind.ANNOUNCE, announce, simulation, attempt)
    assert repeated(talk, b"a", Kind.ANNOUNCE, announce, simulation, attempt) == accepted
    talk.tick(3.0)
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
