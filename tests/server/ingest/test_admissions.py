"""Ingest takes only attempts that the coordinator has assigned, from the key that they were assigned to."""

from __future__ import annotations

import numpy as np
import pytest
from ingest_rig import POINTS, Rig

from penstock_client.reasons import Reason
from penstock_client.stream_payloads import Begin
from penstock_client.wire import Header, Kind, unpack
from penstock_server.network import Admissions, Assignment


@pytest.fixture
def rig() -> Rig:
    """An ingest that knows of attempt 2 of simulation 0, assigned to the key without a name."""
    rig = Rig()
    rig.ingest._streams._admissions = admissions = Admissions()
    admissions.note(Assignment(0, 2, ""))
    return rig


def begin(simulation: int, attempt: int) -> list[bytes]:
    return [Header(Kind.BEGIN, 7, simulation, attempt).pack(), Begin(1, (0.25, 0.5)).pack()]


@pytest.mark.parametrize(
    ("simulation", "attempt", "reason"),
    [
        (1, 1, Reason.UNKNOWN_SIMULATION),
        (0, 3, Reason.UNKNOWN_SIMULATION),
        (0, 2**32 - 1, Reason.UNKNOWN_SIMULATION),
        (0, 1, Reason.STALE_ATTEMPT),
    ],
)
def test_an_attempt_that_was_not_assigned_is_refused(rig: Rig, simulation: int, attempt: int, reason: Reason) -> None:
    assert rig.refusal(*begin(simulation, attempt)).reason is reason
    rig.begin(attempt=2)  # the honest client is not disturbed
    rig.say(*rig.step(0, attempt=2))
    assert rig.end(attempt=2).accepted == 2
    assert rig.trained.total() == 1


def test_another_key_is_refused(rig: Rig) -> None:
    ((_, (header, _)),) = rig.ingest.handle(b"thief", begin(0, 2), 0.0, "thief")
    assert unpack(header).kind is Kind.REFUSE
    rig.begin(attempt=2)


def test_what_is_held_for_an_attempt_is_given_back_when_it_ends(rig: Rig) -> None:
    rig.begin(attempt=2)
    for step in range(5):
        rig.say(*rig.piece("p", np.zeros(POINTS, "<f4"), step, attempt=2))
    assert rig.ingest.incomplete() == 5
    over = Assignment(0, 2, "", over=True)
    rig.ingest._streams._admissions.note(over)
    rig.ingest.release(over)
    assert (rig.ingest.incomplete(), rig.ingest._streams._simulations) == (0, {})
    assert rig.metrics.total("incomplete_dropped") == 5
    for message in (begin(0, 2), rig.piece("p", np.zeros(POINTS, "<f4"), 9, attempt=2)):
        assert rig.refusal(*message).reason is Reason.STALE_ATTEMPT
    assert rig.ingest.incomplete() == 0
    # The piece was under way when its attempt ended, which is nobody's mistake.
    assert (rig.metrics.refusals(), rig.metrics.total("late_dropped")) == ({"stale_attempt": 1}, 1)


def test_what_a_client_leaves_without_end_is_given_back_when_it_begins_another_simulation(rig: Rig) -> None:
    rig.ingest._streams._admissions.note(Assignment(1, 1, ""))
    rig.begin(attempt=2)
    rig.say(*rig.piece("p", np.zeros(POINTS, "<f4"), attempt=2))
    rig.begin(simulation=1)
    assert (rig.ingest.incomplete(), list(rig.ingest._streams._simulations)) == (0, [1])
    assert rig.ingest._streams.holdings.held("") == 0
    rig.begin(attempt=2)  # it may still come back to the same attempt, as after a reconnect
    rig.say(*rig.step(0, attempt=2))
    assert rig.end(attempt=2).accepted == 2


def test_late_news_of_an_earlier_attempt_change_nothing() -> None:
    admissions = Admissions()
    admissions.note(Assignment(0, 2, "a"))
    admissions.note(Assignment(0, 1, "a", over=True))
    admissions.check(Header(Kind.BEGIN, 7, 0, 2), "a")
