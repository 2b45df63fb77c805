"""The coordinator gives up clients that die, fall silent or get stuck, and frees their simulations."""

from __future__ import annotations

from pathlib import Path

import pytest
from talk import Talk, heartbeat

from penstock_client.payloads import Alive, Finish, Hello, Outcome
from penstock_client.reasons import Reason
from penstock_client.wire import ANY_SIMULATION, Kind


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
    assert talk.coordinator.given_up() == (("host", 31, ""),)
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
    assert talk.coordinator.given_up() == tuple(("host", pid, "") for pid in (11, 12, 13))
    talk.coordinator.worker_exited("host", 12, "killed")
    talk.hello(b"another", pid=13, now=12.0)
    assert talk.coordinator.given_up() == (("host", 11, ""),)


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
    assert talk.coordinator.given_up() == (("host", 1, ""),)


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
