"""Ingest counts each piece and each sample once, when a solver or a later attempt sends it again."""

from __future__ import annotations

import numpy as np
import pytest
from ingest_rig import POINTS, Rig, values_of

from penstock_client.reasons import Reason
from penstock_client.stream_payloads import Begin, Streamed
from penstock_client.wire import Header, Kind


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
    assert resumed.normaliser.state_dict()["own"][0] == 1  # the sixth alone
    assert resumed.metrics.total("duplicates_dropped") == 0


def test_only_pieces_count_as_pieces_in_what_end_is_answered() -> None:
    rig = Rig()
    rig.begin()
    rig.say(*rig.step(0))
    rig.say(*rig.step(0))
    rig.refusal(*rig.piece("p", np.full(POINTS, np.nan, "<f4"), 1))
    rig.refusal(Header(Kind.END, 7, 2, 1).pack())
    assert rig.end() == rig.end() == Streamed(2, 2, 1)


def test_a_time_step_sent_twice_breaks_no_window() -> None:
    rig = Rig(window=3)
    rig.begin()
    for step in range(8):
        rig.say(*rig.step(step))
        rig.say(*rig.step(step))
    assert rig.trained.total() == 6
    assert rig.metrics.total("duplicates_dropped") == 8
    assert rig.end() == Streamed(16, 16, 0)


def test_a_held_out_time_step_is_marked_once_it_is_stored() -> None:
    rig, marked = Rig(), []
    add = rig.validation.add
    rig.validation.add = lambda *row: marked.append(rig.validated.has(3, 0)) or add(*row)  # type: ignore[method-assign]
    rig.begin(3)
    rig.say(*rig.step(0, simulation=3))
    assert marked == [False]
    assert rig.validated.has(3, 0)
    assert len(rig.validation) == 1
