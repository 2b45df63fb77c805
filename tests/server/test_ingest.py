"""Ingest by itself: pieces in, samples in the buffer; and what it does with pieces that do not fit."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_client.payloads import Begin, FieldAnnouncement, Refuse, Streamed
from penstock_client.reasons import Reason
from penstock_client.wire import STATIC_STEP, Dtype, Header, Kind, unpack
from penstock_server.agreement import agree
from penstock_server.buffer import Buffer
from penstock_server.config import FieldSection, SamplesSection
from penstock_server.ingest import Ingest
from penstock_server.ledger import Ledger
from penstock_server.metrics import Metrics
from penstock_server.normalisation import Normaliser
from penstock_server.validation import ValidationStore

POINTS = 6
PEER = b"peer"


class Rig:
    """An ingest with everything it feeds, two fields U (3 components) and p; simulations 0..3, of which 3 is held out."""

    def __init__(
        self, window: int = 1, stride: int = 1, time: str = "step", capacity: int = 50, credit: int = 1000
    ) -> None:
        wanted = {"U": FieldSection(components=3), "p": FieldSection()}
        announced = [
            FieldAnnouncement("U", Dtype.FLOAT64, 3, (POINTS,)),
            FieldAnnouncement("p", Dtype.FLOAT32, 1, (POINTS,)),
        ]
        self.schema = agree(announced, wanted, ("a", "b"), SamplesSection(window=window), None)
        spec = self.schema.spec
        self.buffer = Buffer(spec, policy="fifo", capacity=capacity, batch_size=1)
        self.validation, self.normaliser = ValidationStore(spec), Normaliser(spec)
        self.trained, self.validated, self.metrics = Ledger(), Ledger(), Metrics("rank-0", "test")
        self.static: dict[str, np.ndarray] = {}
        self.ingest = Ingest(
            self.schema,
            SamplesSection(window=window, stride=stride, time=time),
            incarnation=7,
            simulations=4,
            held_out=3,
            credit=credit,
            buffer=self.buffer,
            put=self.buffer.try_commit,
            validation=self.validation,
            normaliser=self.normaliser,
            trained=self.trained,
            validated=self.validated,
            metrics=self.metrics,
            on_static=self.static.__setitem__,
        )

    def say(self, *frames: bytes, peer: bytes = PEER):
        return [(unpack(f[0]), f[1]) for _, f in self.ingest.handle(peer, list(frames), 0.0)]

    def begin(self, simulation: int = 0, attempt: int = 1, ranks: int = 1, rank: int = 0, peer: bytes = PEER) -> None:
        header = Header(Kind.BEGIN, 7, simulation, attempt, rank=rank)
        replies = self.say(header.pack(), Begin(ranks, (0.25, 0.5)).pack(), peer=peer)
        assert replies[0][0].kind is Kind.CREDIT, replies

    def piece(self, field: str, values: np.ndarray, step: int = 0, offset: int = 0, **header) -> list[bytes]:
        number = self.schema.ids[field]
        base = {"incarnation": 7, "simulation": 0, "attempt": 1, "dtype": self.schema.dtypes[number], **header}
        made = Header(Kind.PIECE, step=step, field=number, offset=offset, count=values.size, time=0.125 * step, **base)
        return [made.pack(), values.tobytes()]

    def step(self, step: int, **header) -> list[bytes]:
        """Both pieces of a time step in one message."""
        u, p = values_of(step)
        return self.piece("U", u, step, **header) + self.piece("p", p, step, **header)

    def end(self, simulation: int = 0, attempt: int = 1, rank: int = 0, peer: bytes = PEER) -> Streamed:
        ((header, payload), *_) = self.say(Header(Kind.END, 7, simulation, attempt, rank=rank).pack(), peer=peer)
        assert header.kind is Kind.STREAMED
        return Streamed.unpack(payload)

    def refusal(self, *frames: bytes, peer: bytes = PEER) -> Refuse:
        refusals = [Refuse.unpack(p) for h, p in self.say(*frames, peer=peer) if h.kind is Kind.REFUSE]
        assert len(refusals) == 1
        assert self.metrics.refusals()[refusals[0].reason.name.lower()] >= 1
        return refusals[0]


def values_of(step: int) -> tuple[np.ndarray, np.ndarray]:
    u = np.arange(3 * POINTS, dtype="<f8") + 100 * step
    return u, np.arange(POINTS, dtype="<f4") - step


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


def test_what_has_arrived_before_is_dropped_and_counted() -> None:
    rig = Rig()
    rig.begin()
    rig.say(*rig.step(0))
    rig.begin(attempt=2)
    rig.say(*rig.step(0, attempt=2), *rig.step(1, attempt=2))
    assert rig.trained.total() == 2
    assert rig.metrics.total("duplicates_dropped") == 1
    assert rig.end(attempt=2) == Streamed(2, 2, 0)


def test_a_piece_sent_twice_counts_once() -> None:
    rig = Rig()
    rig.begin()
    u, p = values_of(0)
    rig.say(*rig.piece("U", u), *rig.piece("U", u))
    assert rig.buffer.stats().population == 0
    rig.say(*rig.piece("p", p))
    assert rig.buffer.stats().population == 1


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


def test_a_new_attempt_rebuilds_windows_and_only_new_ones_count() -> None:
    rig = Rig(window=3)
    rig.begin()
    for step in range(4):
        rig.say(*rig.step(step))
    rig.begin(attempt=2)
    for step in range(6):
        rig.say(*rig.step(step, attempt=2))
    assert rig.trained.total() == 4
    assert rig.metrics.total("duplicates_dropped") == 2


def test_mesh_geometry_is_taken_once() -> None:
    rig = Rig()
    rig.begin()
    centres = np.arange(3.0 * POINTS)
    rig.say(*rig.piece("cell_centres", centres, STATIC_STEP))
    np.testing.assert_array_equal(rig.static["cell_centres"], centres.reshape(POINTS, 3))
    assert rig.buffer.stats().received == 0


def test_credit_is_what_has_been_dealt_with_plus_the_window() -> None:
    rig = Rig(credit=1000)
    rig.begin()
    size = 8 * 3 * POINTS + 4 * POINTS
    ((header, _),) = rig.say(*rig.step(0))
    assert (header.kind, header.count) == (Kind.CREDIT, size + 1000)
    for step in range(1, 4):
        granted = [h.count for h, _ in rig.say(*rig.step(step)) if h.kind is Kind.CREDIT]
        assert granted == [(step + 1) * size + 1000]


BAD_PIECES = [
    ("nan", {"values": np.array([1.0, np.nan, 3.0], "<f8")}, Reason.NOT_FINITE, "nan at element 1 of field id 0: the solver has div"),
    ("inf", {"values": np.array([np.inf], "<f8"), "offset": 4}, Reason.NOT_FINITE, "inf at element 4"),
    ("beyond the end", {"values": np.zeros(3), "offset": 3 * POINTS - 2}, Reason.SIZE, "piece of 3 elements from 16"),
    ("empty", {"values": np.zeros(0)}, Reason.SIZE, "piece of 0 elements"),
    ("other dtype", {"values": np.zeros(3, "<f4"), "dtype": Dtype.FLOAT32}, Reason.DTYPE, "sent as float32, announced as float64"),
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


@pytest.mark.parametrize(
    ("simulation", "attempt", "reason"),
    [(4, 1, Reason.UNKNOWN_SIMULATION), (-1, 1, Reason.UNKNOWN_SIMULATION), (0, 1, Reason.STALE_ATTEMPT)],
)
def test_a_stream_that_may_not_be_opened_is_refused(simulation: int, attempt: int, reason: Reason) -> None:
    rig = Rig()
    rig.begin(attempt=2)
    header = Header(Kind.BEGIN, 7, simulation, attempt)
    assert rig.refusal(header.pack(), Begin(1, (0.0, 0.0)).pack(), peer=b"late").reason is reason


def test_pieces_of_an_older_attempt_are_refused_once_a_newer_has_begun() -> None:
    rig = Rig()
    rig.begin(peer=b"old")
    rig.begin(attempt=2, peer=b"new")
    assert rig.refusal(*rig.piece("U", np.zeros(3)), peer=b"old").reason is Reason.STALE_ATTEMPT


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


def indices(rig: Rig, field: str, points: list[int], rank: int, dtype: Dtype = Dtype.INT32, **header) -> list[bytes]:
    values = np.array(points, "<i4" if dtype is Dtype.INT32 else "<i8")
    base = {"count": values.size, "dtype": dtype, **header}
    return [Header(Kind.INDICES, 7, 0, 1, field=rig.schema.ids[field], rank=rank, **base).pack(), values.tobytes()]


def two_ranks() -> Rig:
    rig = Rig()
    for rank, peer in enumerate((b"x", b"y")):
        rig.begin(ranks=2, rank=rank, peer=peer)
    return rig


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
        ([6], {}, Reason.SIZE, "has point 6: field id 1 has 0 to 5"),
        ([-1], {}, Reason.SIZE, "has point -1"),
        ([2, 3, 2], {}, Reason.SIZE, "names a point of field id 1 twice"),
        ([1], {}, Reason.SIZE, "point 1 of field id 1 is held by solver rank 1 and by another"),
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


@pytest.mark.parametrize("listed", [False, True])
def test_pieces_that_overlap_are_refused_and_the_time_step_is_not_taken_for_whole(listed: bool) -> None:
    rig = two_ranks()
    u, p = values_of(0)
    if listed:
        rig.say(*indices(rig, "p", [1, 2], 1), peer=b"y")
    rig.say(*rig.piece("U", u), *rig.piece("p", p[:2].copy()), peer=b"x")
    second = rig.piece("p", p[:2].copy(), rank=1) if listed else rig.piece("p", p[1:3].copy(), 0, 1, rank=1)
    assert "overlaps another piece" in rig.refusal(*second, peer=b"y").text
    rig.say(*rig.piece("p", p[2:5].copy(), 0, 2), peer=b"x")
    assert rig.buffer.stats().population == 0
    rig.say(*rig.piece("p", p[5:].copy(), 0, 5), peer=b"x")
    assert rig.buffer.stats().population == 1


def test_the_same_piece_of_another_rank_is_an_overlap() -> None:
    rig = two_ranks()
    u, _ = values_of(0)
    rig.say(*rig.piece("U", u), peer=b"x")
    assert rig.refusal(*rig.piece("U", u, rank=1), peer=b"y").reason is Reason.SIZE


def test_a_rank_that_there_is_none_of_is_refused() -> None:
    rig = Rig()
    header = Header(Kind.BEGIN, 7, 0, 1, rank=2)
    assert "solver rank 2 of 2" in rig.refusal(header.pack(), Begin(2, (0.0, 0.0)).pack()).text


def test_what_failed_simulations_left_is_given_up_when_production_ends() -> None:
    rig = two_ranks()
    rig.say(*rig.piece("p", values_of(0)[1]), peer=b"x")
    rig.ingest.end_production()
    assert rig.metrics.total("incomplete_dropped") == 1


def test_mesh_geometry_is_put_together_from_index_lists() -> None:
    rig = two_ranks()
    volumes = np.arange(1.0, POINTS + 1)
    for rank, (peer, held) in enumerate({b"x": [5, 0, 3], b"y": [1, 2, 4]}.items()):
        rig.say(*indices(rig, "cell_volumes", held, rank), peer=peer)
        rig.say(*rig.piece("cell_volumes", volumes[held].copy(), STATIC_STEP, rank=rank), peer=peer)
    np.testing.assert_array_equal(rig.static["cell_volumes"], volumes[:, None])
