"""Ingest puts the points of solver ranks in their places by the index lists that the ranks send."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ingest_rig import POINTS, Rig, indices, two_ranks, values_of

from penstock_client.reasons import Reason
from penstock_client.wire import STATIC_STEP, Dtype, unpack


@given(
    owner=st.lists(st.integers(0, 2), min_size=POINTS, max_size=POINTS),
    order=st.permutations(range(POINTS)),
    coming=st.permutations(range(6)),
)
@settings(max_examples=40, deadline=None)
def test_index_lists_put_each_point_in_its_place(owner: list[int], order: list[int], coming: list[int]) -> None:
    rig = Rig()
    u, p = values_of(2)
    pieces = []
    for rank in range(3):
        peer = bytes([rank])
        rig.begin(ranks=3, rank=rank, peer=peer)
        held = [point for point in order if owner[point] == rank]
        if not held:
            continue
        for name, values in (("U", u.reshape(POINTS, 3)), ("p", p)):
            assert rig.say(*indices(rig, name, held, rank, Dtype.INT64), peer=peer) == []
            pieces.append((peer, rig.piece(name, values[held].copy().reshape(-1), 2, rank=rank)))
    for position in [i for i in coming if i < len(pieces)]:
        assert rig.buffer.stats().population == 0
        rig.say(*pieces[position][1], peer=pieces[position][0])
    batch = rig.buffer.try_get(1)
    assert batch is not None
    np.testing.assert_array_equal(batch.targets[0, 0].numpy(), np.concatenate([u, p]).astype(np.float32))
    for peer, piece in pieces:
        rig.say(*piece, peer=peer)
    assert rig.metrics.total("duplicates_dropped") == 1  # the time step, however many pieces it comes in


def test_the_same_index_list_again_does_no_harm() -> None:
    rig = two_ranks()
    assert rig.say(*indices(rig, "p", [0, 1], 0), peer=b"x") == rig.say(*indices(rig, "p", [0, 1], 0), peer=b"x") == []


@pytest.mark.parametrize(
    ("points", "header", "reason", "text"),
    [
        ([6], {}, Reason.SIZE, "has point 6: field p has 0 to 5"),
        ([-1], {}, Reason.SIZE, "has point -1"),
        ([2, 3, 2], {}, Reason.SIZE, "names a point of field p twice"),
        ([1], {}, Reason.SIZE, "point 1 of field p is held by solver rank 1 and by another"),
        ([], {}, Reason.SIZE, "index list of 0 points"),
        ([2, 3, 4, 5, 2, 3, 4], {}, Reason.SIZE, "index list of 7 points"),
        ([2], {"count": 2}, Reason.SIZE, "index list of 2 points in 4 bytes"),
        ([2], {"dtype": Dtype.FLOAT32}, Reason.DTYPE, "index list of float32"),
        ([2], {"attempt": 2}, Reason.NO_BEGIN, "INDICES of simulation 0 before its BEGIN"),
        ([2], {"field": 7}, Reason.UNKNOWN_FIELD, "field id 7"),
    ],
)
def test_a_bad_index_list_is_refused(points: list[int], header: dict, reason: Reason, text: str) -> None:
    rig = two_ranks()
    rig.say(*indices(rig, "p", [0, 1], 0), peer=b"x")
    frames = indices(rig, "p", points, 1)
    frames[0] = unpack(frames[0])._replace(**header).pack()
    refuse = rig.refusal(*frames, peer=b"y")
    assert refuse.reason is reason
    assert text in refuse.text


def test_another_index_list_than_before_is_refused() -> None:
    rig = two_ranks()
    rig.say(*indices(rig, "p", [0, 1], 0), peer=b"x")
    assert "another index list" in rig.refusal(*indices(rig, "p", [1, 0], 0), peer=b"x").text


def test_a_piece_beyond_its_ranks_points_is_refused() -> None:
    rig = two_ranks()
    rig.say(*indices(rig, "U", [0, 1], 0), peer=b"x")
    for values, offset in ((np.zeros(9), 0), (np.zeros(3), 1), (np.zeros(2), 0)):
        assert "holds 2 points" in rig.refusal(*rig.piece("U", values, 0, offset), peer=b"x").text


def test_lists_and_offsets_do_not_mix_within_a_field() -> None:
    rig = two_ranks()
    u, p = values_of(0)
    rig.say(*indices(rig, "p", [1, 2], 1), *rig.piece("U", u), peer=b"x")
    refuse = rig.refusal(*rig.piece("p", p), peer=b"x")
    assert "solver rank 0, which has sent no index list, while others have" in refuse.text
    assert "lists come first" in rig.refusal(*indices(rig, "U", [0], 1), peer=b"y").text


def test_pieces_of_one_list_that_overlap_are_refused_and_the_time_step_is_not_taken_for_whole() -> None:
    rig = two_ranks()
    u, p = values_of(0)
    rig.say(*rig.piece("U", u), *indices(rig, "p", [5, 4, 3, 2, 1, 0], 0), peer=b"x")
    rig.say(*rig.piece("p", p[::-1][:4].copy()), peer=b"x")
    assert "overlaps one that has arrived already" in rig.refusal(*rig.piece("p", p[:3].copy(), 0, 3), peer=b"x").text
    assert rig.buffer.stats().population == 0
    rig.say(*rig.piece("p", p[::-1][4:].copy(), 0, 4), peer=b"x")
    batch = rig.buffer.try_get(1)
    assert batch is not None
    np.testing.assert_array_equal(batch.targets[0, 0].numpy(), np.concatenate([u, p]).astype(np.float32))


def test_mesh_geometry_is_put_together_from_index_lists() -> None:
    rig = two_ranks()
    volumes = np.arange(1.0, POINTS + 1)
    for rank, (peer, held) in enumerate({b"x": [5, 0, 3], b"y": [1, 2, 4]}.items()):
        rig.say(*indices(rig, "cell_volumes", held, rank), peer=peer)
        rig.say(*rig.piece("cell_volumes", volumes[held].copy(), STATIC_STEP, rank=rank), peer=peer)
    np.testing.assert_array_equal(rig.static["cell_volumes"], volumes[:, None])


def test_mesh_geometry_may_come_from_attempts_with_different_partitions() -> None:
    rig = two_ranks()
    volumes = np.arange(1.0, POINTS + 1)
    rig.say(*indices(rig, "cell_volumes", [0, 1, 4], 0), peer=b"x")
    rig.say(*rig.piece("cell_volumes", volumes[[0, 1, 4]].copy(), STATIC_STEP), peer=b"x")
    rig.begin(attempt=2)
    for offset in (0, 3):
        assert rig.static == {}
        rig.say(*rig.piece("cell_volumes", volumes[offset : offset + 3].copy(), STATIC_STEP, offset, attempt=2))
    np.testing.assert_array_equal(rig.static["cell_volumes"], volumes[:, None])
    assert rig.end(attempt=2).refused == 0
