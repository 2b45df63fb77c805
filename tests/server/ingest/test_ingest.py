"""Ingest by itself: pieces in, samples in the buffer; and what it does with pieces that do not fit."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_client.errors import Refused
from penstock_client.payloads import FieldAnnouncement, Refuse
from penstock_client.reasons import Reason
from penstock_client.stream_payloads import Begin, Streamed
from penstock_client.wire import STATIC_STEP, Dtype, Header, Kind, unpack
from penstock_server.buffer import Buffer
from penstock_server.ingest import Ingest, Ledger, SampleSinks, SimulationIds
from penstock_server.ingest.assembly import PartialStep
from penstock_server.ingest.ingest import MAX_REFUSALS, UNFINISHED
from penstock_server.study import FieldSection, SamplesSection, agree
from penstock_server.telemetry import Metrics
from penstock_server.training import Normaliser
from penstock_server.validation import ValidationStore

POINTS = 6
PEER = b"peer"


class Rig:
    """An ingest with everything it feeds, two fields U (3 components) and p; simulations 0..3, of which 3 is held out."""

    def __init__(
        self,
        window: int = 1,
        stride: int = 1,
        time: str = "step",
        capacity: int = 50,
        credit: int = 1000,
        redraws: int = 0,
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
            SimulationIds(training=3, held_out=1, replacements=redraws),
            SampleSinks(
                buffer=self.buffer,
                put=self.buffer.try_commit,
                validation=self.validation,
                statistics=self.normaliser.update,
                trained=self.trained,
                validated=self.validated,
                on_static=self.static.__setitem__,
            ),
            incarnation=7,
            credit=credit,
            metrics=self.metrics,
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


def test_a_simulation_that_has_ended_is_known_by_its_attempt() -> None:
    rig = Rig()
    rig.begin(attempt=2)
    rig.say(*rig.step(0, attempt=2))
    assert rig.end(attempt=2) == rig.end(attempt=2) == Streamed(2, 0, 0)  # END again: its answer was late
    stale = Header(Kind.BEGIN, 7, 0, 1).pack()
    assert rig.refusal(stale, Begin(1, (0.25, 0.5)).pack(), peer=b"late").reason is Reason.STALE_ATTEMPT
    rig.begin(attempt=3)
    rig.say(*rig.step(0, attempt=3))
    assert rig.end(attempt=3) == Streamed(0, 2, 0)


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


@pytest.mark.parametrize("simulation", [0, 3], ids=["training", "held out"])
@pytest.mark.parametrize(
    ("late", "reason"),
    [({"attempt": 1}, Reason.STALE_ATTEMPT), ({"attempt": 1, "incarnation": 6}, Reason.INCARNATION)],
    ids=["attempt", "incarnation"],
)
def test_late_data_are_refused_counted_and_change_nothing(
    simulation: int, late: dict[str, int], reason: Reason
) -> None:
    rig = Rig()
    rig.begin(simulation, peer=b"old")
    rig.begin(simulation, attempt=2, peer=b"new")
    rig.say(*rig.step(0, simulation=simulation, **late), peer=b"old")
    assert rig.metrics.refusals() == {reason.name.lower(): 2}  # each of its two pieces
    assert rig.trained.total() == rig.validated.total() == len(rig.validation) == rig.buffer.stats().received == 0
    assert rig.normaliser.state_dict()["own"][0] == 0
    rig.say(*rig.step(0, simulation=simulation, attempt=2), peer=b"new")
    assert rig.trained.total() + rig.validated.total() == 1
    assert rig.metrics.total("duplicates_dropped") == 0


def test_held_out_time_steps_that_have_arrived_before_are_dropped_and_counted() -> None:
    rig = Rig()
    for attempt in (1, 2):
        rig.begin(simulation=3, attempt=attempt)
        rig.say(*rig.step(0, simulation=3, attempt=attempt))
    assert (rig.validated.total(), len(rig.validation)) == (1, 1)
    assert (rig.metrics.total("samples_received"), rig.metrics.total("duplicates_dropped")) == (1, 1)


def test_simulations_that_replace_failed_ones_come_after_the_held_out_ones_and_are_trained_on() -> None:
    rig = Rig(redraws=1)
    rig.begin(simulation=4)
    rig.say(*rig.step(0, simulation=4))
    assert (rig.trained.count(4), rig.validated.total()) == (1, 0)
    header = Header(Kind.BEGIN, 7, 5, 1)
    assert rig.refusal(header.pack(), Begin(1, (0.0, 0.0)).pack()).reason is Reason.UNKNOWN_SIMULATION


@pytest.mark.parametrize("window", [1, 3])
def test_what_a_checkpoint_has_comes_again_without_being_counted_again(window: int) -> None:
    """The fifth time step's sample waited for room when the checkpoint was made: it is in the statistics, and nowhere else."""
    whole = Rig(window=window)
    whole.begin(attempt=2)
    for step in range(6):
        whole.say(*whole.step(step, attempt=2))
    resumed = Rig(window=window)
    resumed.ingest.take_up(0, 2, 4, counted=5)
    resumed.begin(attempt=2)
    for step in range(4):
        resumed.say(*resumed.step(step, attempt=2))
    assert resumed.trained.total() == resumed.buffer.stats().received == resumed.metrics.total("received_bytes") == 0
    for step in range(4, 6):
        resumed.say(*resumed.step(step, attempt=2))
    expected = [i for i in range(6 - window + 1) if i + window > 4]
    assert resumed.buffer.identifiers() == [(0, i) for i in expected]
    ready = [resumed.buffer.try_get(1) for _ in expected]
    for _ in range(whole.buffer.stats().population - len(expected)):
        whole.buffer.try_get(1)
    for batch in ready:
        assert batch is not None
        assert batch.targets.equal(whole.buffer.try_get(1).targets)
    assert resumed.metrics.total("received_bytes") == whole.metrics.total("received_bytes") / 6
    assert resumed.normaliser.state_dict()["own"][0] == window  # of the sixth alone
    assert resumed.metrics.total("duplicates_dropped") == 0


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


def test_only_pieces_count_as_pieces_in_what_end_is_answered() -> None:
    rig = Rig()
    rig.begin()
    rig.say(*rig.step(0))
    rig.say(*rig.step(0))
    rig.refusal(*rig.piece("p", np.full(POINTS, np.nan, "<f4"), 1))
    rig.refusal(Header(Kind.END, 7, 2, 1).pack())
    assert rig.end() == rig.end() == Streamed(2, 2, 1)


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


@pytest.mark.parametrize("ranks", [0, 2**16 + 1, 2**32 - 1])
def test_a_number_of_solver_ranks_that_cannot_be_is_refused(ranks: int) -> None:
    rig = Rig()
    begin = Begin(ranks, (0.0, 0.0)).pack()
    assert rig.refusal(Header(Kind.BEGIN, 7, 0, 1).pack(), begin).reason is Reason.MALFORMED
    rig.begin(ranks=2)
    assert rig.refusal(Header(Kind.END, 7, 0, 1, rank=2).pack()).reason is Reason.MALFORMED


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


def test_a_rank_that_there_is_none_of_is_refused() -> None:
    rig = Rig()
    header = Header(Kind.BEGIN, 7, 0, 1, rank=2)
    assert "BEGIN of solver rank 2 of 2" in rig.refusal(header.pack(), Begin(2, (0.0, 0.0)).pack()).text


def test_what_failed_simulations_left_is_given_up_when_production_ends() -> None:
    rig = two_ranks()
    rig.say(*rig.piece("p", values_of(0)[1]), peer=b"x")
    rig.ingest.give_up_incomplete()
    assert rig.metrics.total("incomplete_dropped") == 1


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
