from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.ingest import Ledger

ARRIVALS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 99)))


@given(ARRIVALS)
def test_it_is_a_set_of_pairs(arrivals: list[tuple[int, int]]) -> None:
    ledger, model = Ledger(max_steps=100), set()
    for arrival in arrivals:
        assert ledger.has(*arrival) == (arrival in model)
        assert ledger.mark(*arrival) == (arrival not in model)
        model.add(arrival)
        assert ledger.has(*arrival)
    assert ledger.total() == len(model)
    assert ledger.simulations() == sorted({simulation for simulation, _ in model})
    for simulation in range(5):
        arrived = {index for s, index in model if s == simulation}
        assert ledger.count(simulation) == len(arrived)
        for steps in (0, 7, 8, 100):
            assert ledger.missing(simulation, steps).tolist() == sorted(set(range(steps)) - arrived)


@given(st.lists(st.tuples(st.integers(0, 4), st.lists(st.integers(0, 99), max_size=30)), max_size=8))
def test_many_at_once_are_one_after_the_other(runs: list[tuple[int, list[int]]]) -> None:
    many, single = Ledger(max_steps=100), Ledger(max_steps=100)
    for simulation, indices in runs:
        assert many.which(simulation, indices) == [single.has(simulation, index) for index in indices]
        many.mark_many(simulation, indices)
        for index in indices:
            single.mark(simulation, index)
        assert many.total() == single.total()
    for name, array in single.state_dict().items():
        np.testing.assert_array_equal(many.state_dict()[name], array)


@given(ARRIVALS, ARRIVALS)
def test_a_state_continues_where_it_was_taken(before: list[tuple[int, int]], after: list[tuple[int, int]]) -> None:
    ledger, copy = Ledger(max_steps=100), Ledger(max_steps=100)
    for arrival in before:
        ledger.mark(*arrival)
    copy.mark(9, 9)  # replaced
    copy.load_state_dict(ledger.state_dict())
    for arrival in after:
        assert copy.mark(*arrival) == ledger.mark(*arrival)
    assert copy.total() == ledger.total()
    assert copy.simulations() == ledger.simulations()
    for name, array in ledger.state_dict().items():
        np.testing.assert_array_equal(copy.state_dict()[name], array)


@pytest.mark.parametrize(("simulation", "index"), [(-1, 0), (0, -1), (0, 1000), (3, 2**63), (3, 10**30)])
def test_what_is_out_of_bounds_is_refused_and_costs_nothing(simulation: int, index: int) -> None:
    ledger = Ledger(max_steps=1000)
    for call in (ledger.mark, ledger.has):
        with pytest.raises(ValueError, match="expected 0 "):
            call(simulation, index)
    for many in (ledger.mark_many, ledger.which):
        with pytest.raises(ValueError, match="expected 0 "):
            many(simulation, [5, index, 7])
    assert ledger.simulations() == []
    assert ledger.total() == 0


def test_the_last_index_is_within_bounds() -> None:
    ledger = Ledger()
    assert ledger.mark(0, 2**24 - 1)
    assert ledger.count(0) == 1
    assert len(ledger.missing(0, 2**24)) == 2**24 - 1
    with pytest.raises(ValueError, match=r"16777217 steps of simulation 0: expected 0 to 16777216"):
        ledger.missing(0, 2**24 + 1)


def test_a_ledger_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="max_steps = 0: expected at least 1"):
        Ledger(max_steps=0)


@pytest.fixture
def traced() -> Iterator[Callable[[], int]]:
    """Bytes that are taken now of what has been taken since the test began."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()


def test_a_hundred_thousand_simulations_of_a_thousand_steps_fit_in_100_mb(traced: Callable[[], int]) -> None:
    """Arriving in rising order, as they do in a study: a row grows by doubling, so the marks at which it does say what it takes."""
    simulations, steps = 100_000, 1_000
    growing = [8 * byte for byte in (0, 1, 2, 4, 8, 16, 32, 64, 124)]
    ledger = Ledger()
    for simulation in range(simulations):
        for index in growing:
            ledger.mark(simulation, index)
    taken = traced()
    assert taken < 100e6
    for index in range(steps):
        ledger.mark(simulations - 1, index)
    assert traced() - taken < 1_000  # the marks in between take no more
    assert ledger.total() == (simulations - 1) * len(growing) + steps


def test_a_checkpoint_of_a_hundred_thousand_whole_simulations_is_taken_up_in_100_mb(traced: Callable[[], int]) -> None:
    simulations, steps = 100_000, 1_000
    state = {
        "simulations": np.arange(simulations),
        "lengths": np.full(simulations, steps // 8),
        "bits": np.full(simulations * steps // 8, 255, dtype=np.uint8),
    }
    before = traced()
    ledger = Ledger()
    ledger.load_state_dict(state)
    assert traced() - before < 100e6
    assert ledger.total() == simulations * steps
    assert ledger.missing(simulations - 1, steps).size == 0
    assert not ledger.mark(simulations - 1, steps - 1)
    assert sum(array.nbytes for array in ledger.state_dict().values()) < 15e6


@pytest.mark.parametrize(
    "damage",
    [
        {"lengths": np.array([1, 1])},
        {"lengths": np.array([-1, 3, 0])},
        {"bits": np.zeros(9, dtype=np.uint8)},
        {"simulations": np.array([0, 1])},
        {"simulations": np.array([0, -1, 2])},
        {"bits": np.array([1, 1, 255], dtype=np.uint8)},  # index 7 where max_steps is 4
    ],
)
def test_a_damaged_state_is_refused(damage: dict[str, Any]) -> None:
    ledger = Ledger(max_steps=4)
    ledger.mark(8, 3)
    state: dict[str, Any] = {
        "simulations": np.array([0, 1, 2]),
        "lengths": np.array([1, 1, 1]),
        "bits": np.ones(3, dtype=np.uint8),
    }
    with pytest.raises(ValueError, match=r"damaged|expected 0"):
        ledger.load_state_dict(state | damage)
    assert ledger.has(8, 3)
    ledger.load_state_dict(state)
    assert ledger.total() == 3
