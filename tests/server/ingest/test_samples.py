"""Which time steps become samples, and which are counted in the statistics and the fingerprints."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ingest_rig import Rig

from penstock_server.ingest import Fingerprints, merged, without_effect
from penstock_server.study import sampled_steps, windows_in


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 30), st.integers(1, 6), st.integers(1, 6))
def test_the_statistics_hold_each_sampled_time_step_once(steps: int, window: int, stride: int) -> None:
    rig = Rig(window=window, stride=stride, capacity=100)
    rig.begin()
    for step in range(steps):
        rig.say(*rig.step(step))
    rig.end()
    assert rig.trained.total() == rig.buffer.stats().population == windows_in(steps, window, stride)
    expected = {i * stride + k for i in range(windows_in(steps, window, stride)) for k in range(window)}
    assert set(np.flatnonzero(sampled_steps(steps, window, stride)).tolist()) == expected
    assert rig.normaliser.rows_seen == len(expected)


def test_statistics_of_windows_after_a_gap_hold_each_time_step_once() -> None:
    rig = Rig(window=4, capacity=100)
    rig.begin()
    for step in (0, 1, 2, 3, 4, 6, 7, 8, 9, 10):
        rig.say(*rig.step(step))
    rig.begin(attempt=2)
    for step in range(11):
        rig.say(*rig.step(step, attempt=2))
    assert rig.trained.total() == 8
    assert rig.normaliser.rows_seen == 11


def test_what_a_failed_simulation_left_is_given_up_when_its_client_begins_the_next() -> None:
    rig = Rig()
    rig.begin(0)
    rig.say(*rig.step(0)[:2])
    assert rig.ingest.incomplete() == 1
    rig.begin(1)
    assert rig.ingest.incomplete() == 0
    assert rig.metrics.total("incomplete_dropped") == 1


def test_a_solver_rank_that_has_ended_may_begin_the_next_while_another_one_goes_on() -> None:
    rig = Rig()
    for rank, peer in enumerate((b"x", b"y")):
        rig.begin(ranks=2, rank=rank, peer=peer)
    rig.say(*rig.step(0)[:2], peer=b"x")
    rig.end(rank=0, peer=b"x")
    rig.begin(1, peer=b"x")
    rig.say(*rig.step(0, rank=1)[2:], peer=b"y")
    assert rig.trained.total() == 1


def fingerprints(fields: dict[int, list[float]], points: dict[int, tuple[float, ...]]) -> Fingerprints:
    out = Fingerprints()
    for simulation, steps in fields.items():
        for step, value in enumerate(steps):
            inputs = np.array([*points[simulation], step], np.float32)
            out.add(simulation, step, inputs, np.full(5, value, np.float32))
    return out


POINTS = {0: (1.0, 1.0), 1: (2.0, 1.0), 2: (2.0, 3.0)}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({0: [0, 1, 2], 1: [0, 1, 2], 2: [0, 1, 2]}, "no parameter has any effect: the first 3 simulations"),
        ({0: [0, 1, 2], 1: [0, 1, 2], 2: [0, 1, 3]}, "a may have no effect: simulations 0 and 1 differ there"),
        ({0: [0, 1, 2], 1: [0, 1, 3], 2: [0, 1, 4]}, ""),
        ({0: [0], 1: [0], 2: [0]}, ""),  # only initial fields have arrived
        ({}, ""),
    ],
)
def test_identical_fields_of_different_parameters_are_noticed(fields: dict[int, list[float]], expected: str) -> None:
    found = fingerprints(fields, POINTS).simulations
    assert without_effect(("a", "b"), found).startswith(expected)
    assert bool(without_effect(("a", "b"), found)) == bool(expected)


def test_fingerprints_of_two_ranks_are_compared_together() -> None:
    """Rank 0 has even time steps, which are equal, and rank 1 odd ones, which differ."""
    one = fingerprints({0: [0, 1, 2], 1: [0, 5, 2]}, POINTS).simulations
    ranks = [
        {i: type(f)(f.parameters, {s: c for s, c in f.steps.items() if s % 2 == r}) for i, f in one.items()}
        for r in (0, 1)
    ]
    assert without_effect(("a", "b"), ranks[0])
    assert not without_effect(("a", "b"), merged(ranks))
