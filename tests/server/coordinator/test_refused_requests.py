"""The coordinator refuses requests that are malformed, impossible or out of date, and counts them."""

from __future__ import annotations

from pathlib import Path

import pytest
from talk import T_FIELD, Talk

from penstock_client.payloads import Announce, Finish, Hello, Outcome, Refuse
from penstock_client.reasons import Reason
from penstock_client.wire import Header, Kind, unpack


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
