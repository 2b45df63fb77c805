"""Training from a recording: every sample once an epoch, in an order that the seed fixes, with the figures of a buffer."""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_server.recording import FileSource
from penstock_server.recording.recording import RecordingError
from penstock_server.recording.source import Epochs, RecordedSamples
from penstock_server.study import Batch, Study, windows_in
from recordings import inputs, recorded, value

STEPS = [7, 5, 0, 6, 4, 4]  # of six simulations, the last two held out, number 2 a failed one


def row(samples: int, batch_size: int, begin: int = 0, end: int | None = None, seed: int = 1) -> list[list[int]]:
    epochs = Epochs(samples, batch_size, seed=seed, begin=begin, end=end)
    return list(itertools.islice(epochs, 40))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.data(), st.integers(0, 2**32))
def test_every_sample_once_an_epoch(samples: int, data: st.DataObject, seed: int) -> None:
    batch_size, epochs = data.draw(st.integers(1, samples)), data.draw(st.integers(1, 4))
    batches = list(Epochs(samples, batch_size, seed=seed, begin=0, end=epochs * samples))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    drawn = list(itertools.chain.from_iterable(batches))
    passes = [drawn[k * samples : (k + 1) * samples] for k in range(epochs)]
    assert all(sorted(one) == list(range(samples)) for one in passes)
    assert len(drawn) == epochs * samples


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 30), st.integers(1, 8), st.integers(0, 20))
def test_the_seed_fixes_the_order_wherever_it_is_taken_up(samples: int, batch_size: int, done: int) -> None:
    whole = row(samples, batch_size)
    assert row(samples, batch_size) == whole
    assert row(samples, batch_size, begin=done * batch_size)[: 40 - done] == whole[done:]
    endless = list(itertools.chain.from_iterable(whole))
    assert len(endless) == 40 * batch_size


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    first, second = row(100, 100)[:2]
    assert first != second
    assert row(100, 100, seed=2)[0] != first


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.integers(1, 4), st.integers(1, 3))
def test_windows_stay_within_their_simulation(steps: list[int], window: int, stride: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        there = recorded(Path(folder) / "data.h5", steps)
        samples = RecordedSamples(there, there.training(), window=window, stride=stride, time="step")
        assert len(samples) == sum(windows_in(n, window, stride) for n in steps)
        numbers = list(range(len(samples)))
        places = samples.places(numbers)
        assert len(set(places)) == len(numbers)
        for number, (simulation, first) in zip(numbers, places, strict=True):
            assert first % stride == 0
            seen, targets = samples[number]
            assert seen.tolist() == [inputs(simulation, first + k).tolist() for k in range(window)]
            assert targets.tolist() == [value(simulation, first + k, 6).tolist() for k in range(window)]
            assert first + window <= steps[simulation]


@pytest.fixture
def source(heat_study: Callable[..., Study], tmp_path: Path) -> Callable[..., FileSource]:
    """A source of the 18 samples of four simulations; keyword arguments go into [training]."""
    there = recorded(tmp_path / "data.h5", STEPS, held_out=2, failed=[2])

    def make(simulations: int = 4, **training: object) -> FileSource:
        base = {"source": "data.h5", "batch_size": 4, "loader_workers": 0}
        return FileSource(there, heat_study(solver={"simulations": simulations}, training={**base, **training}))

    return make


def drawn(source: FileSource, batches: int = 1000) -> list[Batch]:
    return list(itertools.islice(iter(lambda: source.get(source._asked), None), batches))


def identities(batches: list[Batch]) -> list[float]:
    """The first number of each sample's fields, which names its simulation and time step."""
    return [float(first) for batch in batches for first in batch.targets[:, 0, 0]]


def test_what_it_draws_and_says_of_it(source: Callable[..., FileSource]) -> None:
    one = source(epochs=3)
    all_of_it = drawn(one, 7)
    stats = one.stats()
    assert stats.times_seen == {1: 8, 2: 10} == dict(Counter(Counter(identities(all_of_it)).values()))
    assert (stats.capacity, stats.population, stats.received, stats.presentations) == (18, 18, 18, 28)
    assert (stats.unseen, stats.trained_unique, one.drained) == (0, 18, False)
    all_of_it += drawn(one)
    assert [len(batch) for batch in all_of_it] == [4] * 13 + [2]
    expected = {1000 * i + k for i, steps in enumerate(STEPS[:4]) for k in range(steps)}
    assert Counter(identities(all_of_it)) == dict.fromkeys(expected, 3)
    assert one.stats().times_seen == {3: 18}
    assert one.drained
    assert one.get(4) is None


@pytest.mark.parametrize(
    ("training", "batches"),
    [
        ({}, 5),
        ({"epochs": 2}, 9),
        ({"max_batches": 30}, 1000),
        ({"epochs": 2, "max_batches": 300}, 9),
        ({"min_batches": 12}, 12),
        ({"epochs": 2, "min_batches": 3}, 9),
        ({"batch_size": 50}, 1),
        ({"batch_size": 50, "epochs": 2}, 2),
    ],
)
def test_when_it_ends(training: dict[str, int], batches: int, source: Callable[..., FileSource]) -> None:
    assert len(drawn(source(**training))) == batches


def test_a_dataset_smaller_than_a_batch_is_a_batch(source: Callable[..., FileSource]) -> None:
    batches = drawn(source(batch_size=50, epochs=2))
    assert [len(batch) for batch in batches] == [18, 18]
    assert sorted(identities(batches[:1])) == sorted(identities(batches[1:]))


def test_the_first_simulations_alone(source: Callable[..., FileSource]) -> None:
    assert sorted(identities(drawn(source(simulations=1)))) == list(range(7))


def test_processes_that_read_change_nothing_but_who_reads(source: Callable[..., FileSource]) -> None:
    here, there = source(epochs=2), source(epochs=2, loader_workers=2)
    batches = drawn(there)
    for one, other in zip(drawn(here), batches, strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.targets, other.targets)
    there.close()


def test_it_goes_on_where_a_checkpoint_was(source: Callable[..., FileSource]) -> None:
    whole = drawn(source(epochs=3))
    first, later = source(epochs=3), source(epochs=3)
    drawn(first, 6)
    later.load_state_dict(first.state_dict())
    assert later.stats().presentations == 24
    rest = drawn(later)
    assert identities(rest) == identities(whole[6:])
    assert later.stats().times_seen == {3: 18}
    with pytest.raises(RecordingError, match="samples = 18, this one has 7"):
        source(simulations=1).load_state_dict(first.state_dict())


def test_a_closed_source_gives_nothing(source: Callable[..., FileSource]) -> None:
    one = source(epochs=3, loader_workers=1)
    assert one.get(4) is not None
    one.close()
    assert one.get(4) is None
    with pytest.raises(ValueError, match="a batch of 5 samples was asked of a source made for 4"):
        one.get(5)


def test_nothing_to_train_on(heat_study: Callable[..., Study], tmp_path: Path) -> None:
    there = recorded(tmp_path / "data.h5", [2, 2], failed=[0])
    study = heat_study(solver={"simulations": 2}, samples={"window": 3}, training={"source": "data.h5"})
    with pytest.raises(RecordingError, match="no sample of 3 time steps in the 2 simulations"):
        FileSource(there, study)


def test_large_batches_come_through_shared_memory_alike(heat_study: Callable[..., Study], tmp_path: Path) -> None:
    there = recorded(tmp_path / "data.h5", [6, 6], shape=(40_000,))
    study = heat_study(solver={"simulations": 2}, training={"source": "data.h5", "batch_size": 12, "loader_workers": 1})
    one = FileSource(there, study)
    batch = one.get(12)
    one.close()
    assert batch is not None
    expected = np.array([value(i, k, 40_000) for i in range(2) for k in range(6)])
    assert np.array_equal(batch.targets[:, 0][batch.targets[:, 0, 0].argsort()].numpy(), expected)
