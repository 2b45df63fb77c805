"""Ingest bounds what clients can make it store, and how much they can send ahead."""

from __future__ import annotations

import numpy as np
import pytest
from ingest_rig import POINTS, Rig, values_of

from penstock_client.reasons import Reason
from penstock_client.wire import Header, Kind, unpack
from penstock_server.ingest.ingest import MAX_REFUSALS, UNFINISHED


def test_credit_is_what_has_been_dealt_with_plus_the_window() -> None:
    rig = Rig(credit=1000)
    rig.begin()
    size = 8 * 3 * POINTS + 4 * POINTS
    ((header, _),) = rig.say(*rig.step(0))
    assert (header.kind, header.count) == (Kind.CREDIT, size + 1000)
    for step in range(1, 4):
        granted = [h.count for h, _ in rig.say(*rig.step(step)) if h.kind is Kind.CREDIT]
        assert granted == [(step + 1) * size + 1000]


def test_a_client_that_asks_for_its_credit_is_told_where_it_stands() -> None:
    rig = Rig(credit=10_000)
    rig.begin()
    rig.say(*rig.step(0))
    question = Header(Kind.CREDIT, 7, 0, 1).pack()
    ((header, _),) = rig.say(question)
    assert (header.kind, header.count) == (Kind.CREDIT, 10_000 + sum(values.nbytes for values in values_of(0)))
    assert rig.say(question) == rig.say(question)
    # Over a new connection, and about a stream that is another one's by now.
    assert rig.refusal(question, peer=b"again").reason is Reason.NO_BEGIN
    rig.begin(attempt=2, peer=b"other")
    assert rig.refusal(question).reason is Reason.STALE_ATTEMPT


def test_unfinished_time_steps_are_bounded_by_what_credit_lets_be_on_the_way() -> None:
    rig = Rig(credit=1000)
    rig.begin()
    p = values_of(0)[1]
    step_bytes = 4 * 4 * POINTS
    allowed = max(UNFINISHED, 2 * 1000 // step_bytes + 1)
    for step in range(allowed):
        assert [h.kind for h, _ in rig.say(*rig.piece("p", p, step)) if h.kind is not Kind.CREDIT] == []
    refuse = rig.refusal(*rig.piece("p", p, allowed))
    assert refuse.reason is Reason.MALFORMED
    assert f"time step {allowed} while {allowed} others of simulation 0 are unfinished" in refuse.text
    rig.say(*rig.piece("U", values_of(0)[0], 0))  # one becomes whole: there is room for another
    assert [h for h, _ in rig.say(*rig.piece("p", p, allowed)) if h.kind is Kind.REFUSE] == []


def test_solver_ranks_may_be_ahead_of_each_other_by_their_credit() -> None:
    rig = Rig(credit=2000)
    for rank, peer in enumerate((b"x", b"y")):
        rig.begin(ranks=2, rank=rank, peer=peer)
    u, p = values_of(0)
    ahead = 2000 // (p.nbytes + u.nbytes // 2)
    for step in range(2 * ahead):
        rig.say(*rig.piece("p", p, step), *rig.piece("U", u[:9], step), peer=b"x")
    for step in range(2 * ahead):
        rig.say(*rig.piece("U", u[9:], step, 9, rank=1), peer=b"y")
    assert rig.buffer.stats().population == 2 * ahead
    assert rig.metrics.refusals() == {}


def test_a_piece_without_the_time_that_the_study_wants_takes_no_slot() -> None:
    rig = Rig(time="physical")
    rig.begin()
    for step in range(200):
        header, payload = rig.piece("p", values_of(0)[1], step)
        rig.say(unpack(header)._replace(time=float("nan")).pack(), payload)
    rig.say(*rig.step(1))
    assert rig.buffer.stats().spilled == 0
    assert rig.metrics.refusals() == {"schema": 200}


def test_a_client_that_goes_on_sending_after_a_refusal_gets_a_bounded_number_of_answers() -> None:
    rig = Rig()
    rig.begin()
    bad = rig.piece("U", np.array([np.nan], "<f8"))
    answered = sum(h.kind is Kind.REFUSE for _ in range(300) for h, _ in rig.say(*bad))
    assert answered == MAX_REFUSALS
    assert rig.metrics.refusals() == {"not_finite": 300}
    assert rig.end().refused == 300
    rig.begin()
    assert rig.refusal(*bad).reason is Reason.NOT_FINITE


def test_connections_are_forgotten_from_the_one_that_has_been_silent_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock_server.ingest.streams.MAX_CONNECTIONS", 10)
    rig = Rig()
    rig.begin(peer=b"busy")
    rig.begin(simulation=1, peer=b"silent")
    for number in range(30):
        rig.say(*rig.step(number), peer=b"busy")
        rig.say(b"garbage", peer=str(number).encode())
    assert len(rig.ingest._streams._connections) == 10
    assert rig.trained.total() == 30
    refuse = rig.refusal(*rig.step(0, simulation=1)[:2], peer=b"silent")
    assert refuse.reason is Reason.NO_BEGIN
