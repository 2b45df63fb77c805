"""What one worker's key can do to simulations and processes of another: nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from talk import T_FIELD, Talk, heartbeat

from penstock_client.payloads import Announce, Finish, Hello, Outcome, Refuse
from penstock_client.reasons import Reason
from penstock_client.wire import ANY_SIMULATION, Header, Kind, unpack
from penstock_server.network import Assignment


@pytest.fixture
def held(talk: Talk) -> tuple[int, int]:
    """The simulation that an honest worker holds; another client has joined with another key."""
    talk.hello(b"a")
    talk.hello(b"thief", worker="thief")
    return talk.assigned(b"a")


def test_only_a_client_that_serves_an_attempt_ends_or_announces_it(talk: Talk, held: tuple[int, int]) -> None:
    for outcome in Outcome:
        assert talk.refusal(talk.finish(b"thief", *held, outcome, "mine"))[0] is Reason.UNKNOWN_SIMULATION
    announce = talk.say(b"thief", Kind.ANNOUNCE, Announce((T_FIELD,)).pack(), *held)
    assert talk.refusal(announce)[0] is Reason.UNKNOWN_SIMULATION
    assert talk.schemas == []
    counts = talk.coordinator.counts()
    assert (counts.running, counts.finished, counts.failed) == (1, 0, 0)


def test_a_solver_joins_only_a_worker_with_the_same_key(talk: Talk, held: tuple[int, int]) -> None:
    reason, text = talk.refusal(talk.say(b"thief", Kind.NEXT, simulation=held[0], attempt=held[1]))
    assert (reason, "connect file" in text) == (Reason.UNKNOWN_SIMULATION, True)
    talk.hello(b"solver")
    ((_, header, _),) = talk.say(b"solver", Kind.NEXT, simulation=held[0], attempt=held[1])
    assert header.kind is Kind.ASSIGN


def test_a_client_says_once_how_an_attempt_ended(talk: Talk, held: tuple[int, int], tmp_path: Path) -> None:
    talk.finish(b"a", *held, Outcome.FAILED, "boom")
    for _ in range(3):
        assert talk.refusal(talk.finish(b"a", *held, Outcome.FAILED, "again"))[0] is Reason.UNKNOWN_SIMULATION
    assert '"solver"' not in (tmp_path / "events.jsonl").read_text()


def test_an_id_and_its_heartbeats_belong_to_one_key(talk: Talk, held: tuple[int, int]) -> None:
    frames = [Header(Kind.HEARTBEAT, 7, *held).pack(), b"a".ljust(16, b".")]
    ((_, (_, payload)),) = talk.coordinator.handle(b"x", frames, 0.0, "thief")
    assert Refuse.unpack(payload).reason is Reason.NO_HELLO
    frames = [Header(Kind.HELLO, 7, ANY_SIMULATION).pack(), Hello(b"a".ljust(16, b"."), 1, "host").pack()]
    ((_, (header, _)),) = talk.coordinator.handle(b"x", frames, 0.0, "thief")
    assert unpack(header).kind is Kind.REFUSE
    assert talk.coordinator.counts().running == 1


def test_a_process_that_a_client_claims_is_named_with_its_key(talk: Talk) -> None:
    talk.hello(b"thief", pid=4321, worker="thief")
    talk.assigned(b"thief")
    talk.tick(11.0)
    assert talk.coordinator.given_up() == (("host", 4321, "thief"),)
    talk.hello(b"honest", pid=4321, worker="local-0", now=12.0)
    assert talk.coordinator.given_up() == (("host", 4321, "thief"),)
    talk.coordinator.worker_exited("host", 4321, "")
    assert talk.coordinator.given_up() == ()


def test_nobody_has_waited_longer_than_time_has_passed(talk: Talk) -> None:
    talk.hello(b"a")
    for _ in range(2):
        simulation, attempt = talk.assigned(b"a", now=talk.now)
        talk.tick(talk.now + 3.0)
        talk.say(b"a", Kind.FINISH, Finish(Outcome.FINISHED, 1, 5, "", 1e300).pack(), simulation, attempt)
    assert math.isclose(talk.coordinator.blocked_seconds, 6.0)


def test_a_revoked_key_loses_its_simulations_at_once(talk: Talk) -> None:
    talk.hello(b"thief", worker="thief")
    taken = talk.assigned(b"thief")
    talk.hello(b"a")
    talk.coordinator.withdrawn(["thief", "nobody"])
    assert talk.coordinator.counts().running == 0
    assert talk.refusal(heartbeat(talk, b"thief", *taken, 0.0))[0] is Reason.GIVEN_UP
    assert talk.assigned(b"a")[0] != taken[0]


def test_the_ranks_know_of_an_attempt_before_its_client_may_begin(talk: Talk) -> None:
    news: list[Assignment] = []
    talk.coordinator._assignments._tell = lambda assignment: bool(news.append(assignment))
    talk.hello(b"a", worker="local-0")
    simulation, attempt = talk.assigned(b"a")
    announce = Announce((T_FIELD,)).pack()
    assert talk.say(b"a", Kind.ANNOUNCE, announce, simulation, attempt) == []
    assert talk.coordinator.admitted(0) == []
    assert news == [Assignment(simulation, attempt, "local-0")]
    ((peer, (header, _)),) = talk.coordinator.admitted(1)
    assert (peer, unpack(header).kind) == (b"a", Kind.ACCEPT)
    talk.finish(b"a", simulation, attempt)
    assert news[1] == Assignment(simulation, attempt, "local-0", over=True)


def test_a_worker_that_leaves_without_a_word_loses_its_simulation_at_once(talk: Talk, tmp_path: Path) -> None:
    talk.hello(b"a", pid=5)
    talk.hello(b"idle", pid=6)
    talk.assigned(b"a")
    for pid in (5, 6):
        talk.coordinator.worker_exited("host", pid, "exit code 0")
    assert talk.coordinator.counts().running == 0
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [line["pid"] for line in lines if line["event"] == "client_lost"] == [5]


def test_a_simulation_that_is_handed_back_again_and_again_fails(talk: Talk) -> None:
    talk.hello(b"a")
    for _ in range(3):
        talk.finish(b"a", *talk.assigned(b"a"))
    attempts = []
    while talk.coordinator.has_waiting and len(attempts) < 100:
        attempts.append(talk.assigned(b"a"))
        talk.finish(b"a", *attempts[-1], Outcome.RETURNED)
    assert attempts == [(2, attempt) for attempt in range(1, 13)]  # ten are free, two fail with retries = 1
    assert "handed it back" in talk.coordinator.failures()[2]


def test_texts_of_clients_do_not_steer_a_terminal(talk: Talk, tmp_path: Path) -> None:
    talk.say(b"a", Kind.HELLO, Hello(b"a" * 16, 1, "node\x1b[2J\u202e\n" + "\u202e" * 2000).pack(), ANY_SIMULATION)
    for _ in range(2):
        simulation, attempt = talk.assigned(b"a")
        talk.finish(b"a", simulation, attempt, Outcome.FAILED_FOR_GOOD, "\x1b]0;title\x07 first\nsecond \u2066x")
    assert talk.coordinator.failures()[simulation] == "\ufffd]0;title\ufffd first\nsecond \ufffdx"
    text = (tmp_path / "events.jsonl").read_text()
    assert not any(code in text for code in ("\\u001b", "\\u202e", "\\u2066", "\\u0007"))
