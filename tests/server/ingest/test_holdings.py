"""What the clients of one key can make a trainer rank hold has a total bound; all of it is given back at an attempt's end."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ingest_rig import POINTS, Rig, indices

from penstock_client.reasons import Reason
from penstock_client.stream_payloads import Begin
from penstock_client.wire import Header, Kind
from penstock_server.ingest.holdings import STEP_BYTES, STRETCH_BYTES, allowance
from penstock_server.network import Admissions, Assignment
from penstock_server.study import Study

STEP = 4 * (3 + 4 * POINTS) + STEP_BYTES
HALF = STEP + STRETCH_BYTES  # a time step of which one field has come


def assigned(rig: Rig, *simulations: int) -> Admissions:
    """The rig takes the first attempts of these simulations."""
    rig.ingest._streams._admissions = admissions = Admissions()
    for simulation in simulations:
        admissions.note(Assignment(simulation, 1, ""))
    return admissions


def held(rig: Rig) -> int:
    return rig.ingest._streams.holdings.held("")


def half(rig: Rig, simulation: int, step: int) -> list[bytes]:
    """One of the two fields of a time step."""
    return rig.piece("p", np.zeros(POINTS, "<f4"), step, simulation=simulation)


def test_a_key_is_bounded_over_all_of_its_simulations_and_goes_on_after_one_has_ended() -> None:
    rig = Rig(limit=20 * HALF)
    assigned(rig, 0, 1)
    for simulation in (0, 1):
        rig.begin(simulation, peer=b"%d" % simulation)
        for step in range(10):
            rig.say(*half(rig, simulation, step), peer=b"%d" % simulation)
    refusal = rig.refusal(*half(rig, 1, 10), peer=b"1")
    assert refusal.reason is Reason.MALFORMED
    assert f"at most {20 * HALF:,} are allowed" in refusal.text
    assert rig.metrics.refusals() == {"malformed": 1}
    rig.ingest.release(Assignment(0, 1, "", over=True))
    rig.say(*half(rig, 1, 10), peer=b"1")
    assert (rig.ingest.incomplete(), held(rig)) == (11, 11 * HALF)


def test_another_key_is_not_bounded_by_what_the_first_holds() -> None:
    rig = Rig(limit=HALF)
    admissions = assigned(rig, 0)
    admissions.note(Assignment(1, 1, "honest"))
    rig.begin(0)
    rig.say(*half(rig, 0, 0))
    assert rig.refusal(*half(rig, 0, 1)).reason is Reason.MALFORMED
    begin = [Header(Kind.BEGIN, 7, 1, 1).pack(), Begin(1, (0.25, 0.5)).pack()]
    rig.ingest.handle(b"honest", begin, 0.0, "honest")
    assert rig.ingest.handle(b"honest", half(rig, 1, 0), 0.0, "honest") == []
    assert rig.ingest._streams.holdings.held("honest") == HALF


def test_index_lists_and_windows_count() -> None:
    rig = Rig(window=3, limit=3 * STEP + 600)
    rig.begin()
    assert held(rig) == 3 * STEP
    rig.say(*indices(rig, "U", list(range(POINTS)), 0))
    assert held(rig) > 3 * STEP + 500
    before = held(rig)
    rig.say(*indices(rig, "U", list(range(POINTS)), 0))  # the same list again takes no more
    assert held(rig) == before
    assert rig.refusal(*indices(rig, "p", list(range(POINTS)), 0)).reason is Reason.MALFORMED


def test_a_time_step_in_scattered_pieces_counts_for_more_than_its_values() -> None:
    rig = Rig(limit=2 * STEP)
    rig.begin()
    for offset in (0, 2, 4):
        rig.say(*rig.piece("p", np.zeros(1, "<f4"), offset=offset))
    assert held(rig) == STEP + 3 * STRETCH_BYTES


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), window=st.sampled_from([1, 3]))
def test_nothing_is_held_once_all_attempts_have_ended(seed: int, window: int) -> None:
    rng = random.Random(seed)
    rig = Rig(window=window, limit=12 * STEP)
    admissions = assigned(rig, 0, 1, 3)
    for _ in range(60):
        simulation, step = rng.choice([0, 1, 3]), rng.randrange(6)
        peer = rng.choice([b"x", b"y"])
        rank = int(peer == b"y")
        begin = [Header(Kind.BEGIN, 7, simulation, 1, rank=rank).pack(), Begin(2, (0.25, 0.5)).pack()]
        offset = rng.randrange(POINTS)
        piece = rig.piece(
            rng.choice("pU"), np.zeros(rng.randint(1, POINTS - offset)), step, offset, simulation=simulation
        )
        message = rng.choice(
            [
                begin,
                rig.step(step, simulation=simulation),
                piece,
                indices(rig, "p", rng.sample(range(POINTS), 2), rank),
                [Header(Kind.END, 7, simulation, 1, rank=rank).pack(), b""],
            ]
        )
        rig.say(*message, peer=peer)
        assert 0 <= held(rig) <= 12 * STEP
        assert held(rig) >= STEP * rig.ingest.incomplete()
    for simulation in (0, 1, 3):
        admissions.note(Assignment(simulation, 1, "", over=True))
        rig.ingest.release(Assignment(simulation, 1, "", over=True))
    assert (held(rig), rig.ingest.incomplete()) == (0, 0)


@pytest.mark.parametrize("spare", [0, 2**34])
@pytest.mark.parametrize(("ranks", "concurrency", "window"), [(1, 1, 1), (64, 3, 5)])
def test_an_honest_study_needs_less_than_it_is_allowed(ranks: int, concurrency: int, window: int, spare: int) -> None:
    """All simulations of a study at once, each with as many time steps unfinished as it may always have, in small pieces."""
    rig = Rig(window=window)
    study = Study.model_validate(
        {
            "study": {"name": "honest"},
            "parameters": {"a": [2.0, 3.0]},
            "solver": {"command": ["x"], "simulations": 3, "ranks": ranks, "concurrency": concurrency},
            "fields": {"U": {"components": 3}, "p": {}},
            "samples": {"window": window},
            "model": {"name": "mlp"},
            "directory": str(Path()),
        }
    )
    limit = allowance(study, rig.schema, spare)
    rig = Rig(window=window, limit=limit)
    for simulation in range(concurrency):
        for rank in range(min(ranks, POINTS)):
            rig.begin(simulation, ranks=ranks, rank=rank, peer=b"%d %d" % (simulation, rank))
            for field in "Up":
                message = indices(rig, field, [rank], rank, simulation=simulation)
                assert rig.say(*message, peer=b"%d %d" % (simulation, rank)) == []
        for step in range(16):
            for rank in range(0, min(ranks, POINTS - 1), 2):
                piece = rig.piece("p", np.zeros(1, "<f4"), step, simulation=simulation, rank=rank)
                assert rig.say(*piece, peer=b"%d %d" % (simulation, rank)) == []
    assert rig.ingest.incomplete() == 16 * concurrency
    assert rig.metrics.refusals() == {}
