"""Ingest assembles time steps from pieces, and samples for training or validation from time steps."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from ingest_rig import POINTS, Rig, two_ranks, values_of

from penstock_client.errors import Refused
from penstock_client.reasons import Reason
from penstock_client.stream_payloads import Begin, Streamed
from penstock_client.wire import STATIC_STEP, Header, Kind
from penstock_server.ingest.assembly import PartialStep


def test_a_time_step_becomes_a_sample_with_its_parameters_and_time() -> None:
    rig = Rig()
    rig.begin()
    rig.say(*rig.step(4))
    batch = rig.buffer.try_get(1)
    assert batch is not None
    assert batch.inputs[0, 0].tolist() == [0.25, 0.5, 4.0]
    np.testing.assert_array_equal(batch.targets[0, 0].numpy(), np.concatenate(values_of(4)).astype(np.float32))
    assert rig.end() == Streamed(2, 0, 0)


def test_physical_time_reaches_the_model_where_the_study_says_so() -> None:
    rig = Rig(time="physical")
    rig.begin()
    rig.say(*rig.step(4))
    batch = rig.buffer.try_get(1)
    assert batch is not None
    assert batch.inputs[0, 0, -1] == 0.5


@given(order=st.permutations(range(8)), cuts=st.lists(st.integers(1, 3 * POINTS - 1), max_size=3, unique=True))
@settings(max_examples=40, deadline=None)
def test_pieces_in_any_order_make_the_same_time_step_and_none_is_visible_before_the_last(order, cuts) -> None:
    rig = Rig()
    rig.begin(ranks=4)
    u, p = values_of(2)
    edges = [0, *sorted(cuts), u.size]
    pieces = [rig.piece("U", u[a:b], 2, a) for a, b in itertools.pairwise(edges)] + [rig.piece("p", p, 2)]
    for position in [i for i in order if i < len(pieces)]:
        assert rig.buffer.stats().population == 0
        rig.say(*pieces[position])
    batch = rig.buffer.try_get(1)
    assert batch is not None
    np.testing.assert_array_equal(batch.targets[0, 0].numpy(), np.concatenate([u, p]).astype(np.float32))


def test_held_out_simulations_never_reach_the_buffer() -> None:
    rig = Rig()
    rig.begin(simulation=3)
    rig.say(*rig.step(0, simulation=3))
    assert rig.buffer.stats().received == 0
    assert len(rig.validation) == 1
    assert rig.validated.total() == 1


def test_a_time_step_that_never_becomes_whole_is_given_up_when_all_ranks_have_ended() -> None:
    rig = Rig()
    for rank, peer in enumerate((b"x", b"y")):
        rig.begin(ranks=2, rank=rank, peer=peer)
    rig.say(*rig.piece("p", values_of(0)[1]), peer=b"x")
    rig.end(rank=0, peer=b"x")
    assert rig.metrics.total("incomplete_dropped") == 0
    rig.end(rank=1, peer=b"y")
    assert rig.metrics.total("incomplete_dropped") == 1
    assert rig.buffer.stats().population == 0


def test_windows_are_consecutive_time_steps_of_one_simulation() -> None:
    rig = Rig(window=3, stride=2)
    rig.begin()
    for step in range(8):
        rig.say(*rig.step(step))
    starts = []
    while (batch := rig.buffer.try_get(1)) is not None:
        times = batch.inputs[0, :, -1].tolist()
        assert times == [times[0], times[0] + 1, times[0] + 2]
        starts.append(times[0])
    assert starts == [0.0, 2.0, 4.0]


def test_mesh_geometry_is_taken_once() -> None:
    rig = Rig()
    rig.begin()
    centres = np.arange(3.0 * POINTS)
    rig.say(*rig.piece("cell_centres", centres, STATIC_STEP))
    np.testing.assert_array_equal(rig.static["cell_centres"], centres.reshape(POINTS, 3))
    assert rig.buffer.stats().received == 0


def test_simulations_that_replace_failed_ones_come_after_the_held_out_ones_and_are_trained_on() -> None:
    rig = Rig(redraws=1)
    rig.begin(simulation=4)
    rig.say(*rig.step(0, simulation=4))
    assert (rig.trained.count(4), rig.validated.total()) == (1, 0)
    header = Header(Kind.BEGIN, 7, 5, 1)
    assert rig.refusal(header.pack(), Begin(1, (0.0, 0.0)).pack()).reason is Reason.UNKNOWN_SIMULATION


def test_pieces_that_overlap_are_refused_and_leave_no_gap_uncounted() -> None:
    rig = Rig()
    rig.begin()
    u, p = values_of(0)
    rig.say(*rig.piece("U", u[:9]), *rig.piece("p", p))
    assert rig.refusal(*rig.piece("U", u[6:15], offset=6)).reason is Reason.SIZE
    assert rig.refusal(*rig.piece("U", u, offset=0)).reason is Reason.SIZE
    rig.say(*rig.piece("U", u[:9]))  # the same again is a duplicate
    assert rig.buffer.stats().population == 0
    rig.say(*rig.piece("U", u[9:], offset=9))
    batch = rig.buffer.try_get(1)
    assert batch is not None
    np.testing.assert_array_equal(batch.targets[0, 0].numpy(), np.concatenate([u, p]).astype(np.float32))
    assert rig.end() == Streamed(3, 1, 2)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 8)), max_size=30))
@settings(max_examples=200, deadline=None)
def test_a_time_step_is_whole_exactly_when_every_element_has_come(pieces: list[tuple[int, int]]) -> None:
    partial, come = PartialStep(np.empty(0, np.float32), np.full(24, np.nan, np.float32)), np.zeros(24, bool)
    for start, size in pieces:
        here = slice(start, min(24, start + size))
        values = np.arange(24.0)[here]
        try:
            new = partial.add(start, values)
        except Refused:
            assert come[here].any()
            assert not come[here].all()
            continue
        assert new == (not come[here].any())
        come[here] = True
        assert partial.whole == come.all()
        np.testing.assert_array_equal(np.isnan(partial.targets), ~come)


def test_what_failed_simulations_left_is_given_up_when_production_ends() -> None:
    rig = two_ranks()
    rig.say(*rig.piece("p", values_of(0)[1]), peer=b"x")
    rig.ingest.give_up_incomplete()
    assert rig.metrics.total("incomplete_dropped") == 1
