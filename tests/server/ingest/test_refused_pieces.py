"""Ingest refuses messages that do not fit the study or the stream, and goes on with the others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ingest_rig import PEER, POINTS, Rig, values_of

from penstock_client.reasons import Reason
from penstock_client.stream_payloads import Begin
from penstock_client.wire import Dtype, Header, Kind, unpack

BAD_PIECES = [
    ("nan", {"values": np.array([1.0, np.nan, 3.0], "<f8")}, Reason.NOT_FINITE, "nan at element 1 of field U: the solver has div"),
    ("inf", {"values": np.array([np.inf], "<f8"), "offset": 4}, Reason.NOT_FINITE, "inf at element 4"),
    ("beyond the end", {"values": np.zeros(3), "offset": 3 * POINTS - 2}, Reason.SIZE, "from 16 in 24 bytes: field U has 18 elements"),
    ("empty", {"values": np.zeros(0)}, Reason.SIZE, "piece of 0 elements"),
    ("other dtype", {"values": np.zeros(3, "<f4"), "dtype": Dtype.FLOAT32}, Reason.DTYPE, "field U sent as float32, announced as float64"),
    ("other simulation", {"values": np.zeros(3), "simulation": 2}, Reason.NO_BEGIN, "PIECE of simulation 2 before its BEGIN"),
    ("other attempt", {"values": np.zeros(3), "attempt": 9}, Reason.NO_BEGIN, "before its BEGIN"),
    ("other incarnation", {"values": np.zeros(3), "incarnation": 6}, Reason.INCARNATION, "incarnation 7"),
    ("negative step", {"values": np.zeros(3), "step": -2}, Reason.MALFORMED, "time step -2"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "piece", "reason", "text"), BAD_PIECES, ids=[b[0] for b in BAD_PIECES])
def test_a_bad_piece_is_refused_with_a_reason_and_the_rest_goes_on(name, piece, reason, text) -> None:
    rig = Rig()
    rig.begin()
    refuse = rig.refusal(*rig.piece("U", **piece))
    assert refuse.reason is reason, name
    assert text in refuse.text
    rig.say(*rig.step(1))
    assert rig.buffer.stats().population == 1
    assert rig.end().refused == 1


def test_an_unknown_field_is_refused() -> None:
    rig = Rig()
    rig.begin()
    header, payload = rig.piece("U", np.zeros(3))
    refuse = rig.refusal(unpack(header)._replace(field=5).pack(), payload)
    assert refuse.reason is Reason.UNKNOWN_FIELD
    assert "field id 5 at time step 0: announce the field first" in refuse.text


@pytest.mark.parametrize(
    ("simulation", "attempt", "reason"),
    [(4, 1, Reason.UNKNOWN_SIMULATION), (-1, 1, Reason.UNKNOWN_SIMULATION), (0, 1, Reason.STALE_ATTEMPT)],
)
def test_a_stream_that_may_not_be_opened_is_refused(simulation: int, attempt: int, reason: Reason) -> None:
    rig = Rig()
    rig.begin(attempt=2)
    header = Header(Kind.BEGIN, 7, simulation, attempt)
    assert rig.refusal(header.pack(), Begin(1, (0.0, 0.0)).pack(), peer=b"late").reason is reason


@given(st.lists(st.binary(max_size=200), max_size=5))
@settings(max_examples=200, deadline=None)
def test_garbage_never_raises_and_leaves_valid_traffic_alone(frames: list[bytes]) -> None:
    rig = Rig()
    rig.begin()
    rig.ingest.handle(b"stranger", frames, 0.0)
    rig.ingest.handle(PEER, frames, 0.0)
    rig.say(*rig.step(0))
    assert rig.buffer.stats().population == 1


@given(position=st.integers(0, 63), value=st.integers(0, 255))
@settings(max_examples=300, deadline=None)
def test_a_header_with_any_byte_changed_never_raises(position: int, value: int) -> None:
    rig = Rig()
    rig.begin()
    frames = rig.piece("U", values_of(0)[0])
    mutated = bytearray(frames[0])
    mutated[position] = value
    rig.ingest.handle(PEER, [bytes(mutated), frames[1]], 0.0)
    rig.say(*rig.step(1))
    assert rig.trained.has(0, 1)


@pytest.mark.parametrize("ranks", [0, 2**16 + 1, 2**32 - 1])
def test_a_number_of_solver_ranks_that_cannot_be_is_refused(ranks: int) -> None:
    rig = Rig()
    begin = Begin(ranks, (0.0, 0.0)).pack()
    assert rig.refusal(Header(Kind.BEGIN, 7, 0, 1).pack(), begin).reason is Reason.MALFORMED
    rig.begin(ranks=2)
    assert rig.refusal(Header(Kind.END, 7, 0, 1, rank=2).pack()).reason is Reason.MALFORMED


def test_a_rank_that_there_is_none_of_is_refused() -> None:
    rig = Rig()
    header = Header(Kind.BEGIN, 7, 0, 1, rank=2)
    assert "BEGIN of solver rank 2 of 2" in rig.refusal(header.pack(), Begin(2, (0.0, 0.0)).pack()).text
