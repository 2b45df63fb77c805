"""A block of whole time steps does what its pieces would do, one after the other."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ingest_rig import POINTS, Rig, indices, values_of

from penstock_client.reasons import Reason
from penstock_client.wire import Header, Kind
from penstock_server.training.welford import Welford

ROW = 3 * POINTS * 8 + POINTS * 4


def rows_of(steps: list[int]) -> bytes:
    return b"".join(b"".join(values.tobytes() for values in values_of(step)) for step in steps)


def block(first: int, number: int, distance: int = 1, payload: bytes | None = None, **header) -> list[bytes]:
    """The message with the time steps first, first + distance, ..."""
    steps = [first + k * distance for k in range(number)]
    if payload is None:
        payload = rows_of(steps) + struct.pack(f"<{number - 1}d", *(0.125 * step for step in steps[1:]))
    base = {"simulation": 0, "time": 0.125 * first, **header}
    return [Header(Kind.BLOCK, 7, attempt=1, step=first, offset=distance, count=number, **base).pack(), payload]


def content(rig: Rig) -> list[tuple[int, int, bytes, bytes]]:
    """Every sample of a rig's buffer, in the order in which it was put."""
    state = rig.buffer.state_dict()
    samples = rig.buffer.identifiers()
    rig.buffer.end_production()
    out = []
    while (batch := rig.buffer.try_get(1)) is not None:
        out.append((batch.inputs.numpy().tobytes(), batch.targets.numpy().tobytes()))
    assert state["meta"]["policy"] == "fifo"
    return [(*identifier, *arrays) for identifier, arrays in zip(sorted(samples), out, strict=True)]


runs = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 6), st.integers(1, 3)), min_size=1, max_size=5)


@given(
    runs,
    st.sampled_from([(1, 1), (1, 2), (3, 1), (3, 2)]),
    st.sampled_from(["step", "physical"]),
    st.sampled_from([0, 3]),
)
def test_blocks_and_pieces_give_the_same(runs, samples, time, simulation) -> None:
    """Simulation 3 is held out."""
    window, stride = samples
    rigs = [Rig(window=window, stride=stride, time=time, credit=10**6) for _ in range(2)]
    for rig in rigs:
        rig.begin(simulation)
    for first, number, distance in runs:
        assert not rigs[0].say(*block(first, number, distance, simulation=simulation))
        for step in range(first, first + number * distance, distance):
            assert not rigs[1].say(*rigs[1].step(step, simulation=simulation))
    by_block, by_pieces = rigs
    assert by_block.trained.state_dict()["bits"].tolist() == by_pieces.trained.state_dict()["bits"].tolist()
    assert by_block.validated.state_dict()["bits"].tolist() == by_pieces.validated.state_dict()["bits"].tolist()
    for name in ("samples_received", "duplicates_dropped"):
        assert getattr(by_block.metrics, name)._value.get() == getattr(by_pieces.metrics, name)._value.get()
    ours, theirs = by_block.normaliser.statistics(), by_pieces.normaliser.statistics()
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-9)
    assert content(by_block) == content(by_pieces)
    assert by_block.validation.predictable() == by_pieces.validation.predictable()


def test_time_steps_before_the_first_bad_value_are_kept() -> None:
    rig = Rig()
    rig.begin()
    rows = bytearray(rows_of([0, 1, 2, 3]) + struct.pack("<3d", 1, 2, 3))
    rows[2 * ROW + 8 * 4 : 2 * ROW + 8 * 5] = struct.pack("<d", math.nan)
    refuse = rig.refusal(*block(0, 4, payload=bytes(rows)))
    assert refuse.reason is Reason.NOT_FINITE
    assert "time step 2 of simulation 0 has nan at element 4 of field U: the solver has diverged" in refuse.text
    assert rig.buffer.identifiers() == [(0, 0), (0, 1)]
    assert [rig.trained.has(0, step) for step in range(4)] == [True, True, False, False]
    rig.say(*block(4, 2))
    assert rig.end().refused == 1
    assert rig.buffer.stats().population == 4
    known = Welford.empty(1)
    for step in (0, 1, 4, 5):
        known.update(values_of(step)[1].reshape(-1, 1))
    np.testing.assert_allclose(rig.normaliser.field_statistics()["p"].to_array(), known.to_array(), atol=1e-12)


def test_a_time_that_is_no_number_is_refused_from_there_on() -> None:
    rig = Rig(time="physical")
    rig.begin()
    refuse = rig.refusal(*block(0, 3, payload=rows_of([0, 1, 2]) + struct.pack("<2d", 0.1, math.inf)))
    assert refuse.reason is Reason.SCHEMA
    assert "time step 2 has the physical time inf" in refuse.text
    assert rig.buffer.identifiers() == [(0, 0), (0, 1)]


@pytest.mark.parametrize(
    ("message", "reason", "text"),
    [
        ({"number": 2, "payload": b"\0" * (2 * ROW)}, Reason.SIZE, f"block of 2 time steps in {2 * ROW} bytes"),
        ({"number": 0, "payload": b""}, Reason.SIZE, "block of 0 time steps"),
        ({"number": 1, "distance": 0}, Reason.MALFORMED, "at a distance of 0"),
        ({"number": 2, "first": -1}, Reason.MALFORMED, "block of 2 time steps from -1"),
        ({"number": 2, "distance": 2**62}, Reason.MALFORMED, "expected a distance"),
        ({"number": 1, "simulation": 2}, Reason.NO_BEGIN, "BLOCK of simulation 2 before its BEGIN"),
    ],
)
def test_a_block_that_does_not_fit_is_refused(message, reason, text) -> None:
    rig = Rig()
    rig.begin()
    message = {"first": 0, "payload": rows_of([0]) + b"\0" * (ROW + 8) * (message["number"] - 1), **message}
    refuse = rig.refusal(*block(**message))
    assert refuse.reason is reason
    assert text in refuse.text
    rig.say(*block(1, 2))
    assert rig.buffer.stats().population == 2
    assert rig.end().refused == 1


def test_a_block_is_no_part_of_a_time_step() -> None:
    rig = Rig()
    rig.begin()
    rig.say(*rig.piece("U", values_of(1)[0], step=1))
    refuse = rig.refusal(*block(0, 2))
    assert refuse.reason is Reason.MALFORMED
    assert "1 unfinished time steps" in refuse.text
    shared = Rig()
    shared.begin(ranks=2)
    assert "2 solver ranks" in shared.refusal(*block(0, 2)).text


def test_a_solver_that_has_listed_points_sends_pieces() -> None:
    rig = Rig()
    rig.begin()
    rig.say(*indices(rig, "U", list(range(POINTS)), 0))
    assert rig.refusal(*block(0, 1)).reason is Reason.MALFORMED


def test_a_block_larger_than_the_spare_slots_is_taken() -> None:
    rig = Rig(capacity=300, credit=10**6)
    rig.begin()
    rig.say(*block(0, 200))
    assert rig.buffer.identifiers() == [(0, step) for step in range(200)]


def test_a_study_that_stops_in_the_middle_of_a_block_takes_its_beginning() -> None:
    rig = Rig(capacity=5)
    rig.begin()
    refuse = rig.refusal(*block(0, 8))  # the rig's buffer never waits for room
    assert refuse.reason is Reason.STUDY_OVER
    assert rig.buffer.identifiers() == [(0, step) for step in range(5)]
    assert [rig.trained.has(0, step) for step in range(8)] == [True] * 5 + [False] * 3


@pytest.mark.parametrize("by_block", [True, False])
def test_time_steps_of_a_checkpoint_are_neither_put_nor_counted_again(by_block: bool) -> None:
    rig = Rig()
    rig.ingest.take_up(0, 1, 2, counted=3)
    rig.begin()
    rig.say(*(block(0, 5) if by_block else [frame for step in range(5) for frame in rig.step(step)]))
    assert rig.buffer.identifiers() == [(0, 2), (0, 3), (0, 4)]
    assert rig.normaliser.rows_seen == 2
