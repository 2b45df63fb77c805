"""What the policies promise beyond the model test: uniform draws, order, the two ends of production, sizes that cannot work."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from penstock_server.buffer import Buffer, Storage, check_sizes
from penstock_server.study import Batch, FieldSpec, SampleSpec

SPEC = SampleSpec(parameters=(), fields=(FieldSpec("u", 1, (4,)),))


def put(buffer: Buffer, *identifiers: int) -> None:
    for identifier in identifiers:
        slot = buffer.reserve()
        slot.inputs[:] = identifier
        slot.targets[:] = identifier
        slot.simulation = identifier
        assert buffer.try_commit(slot)


def drawn(batch: Batch | None) -> list[int]:
    assert batch is not None
    return [int(value) for value in batch.inputs[:, 0, 0]]


def p_value(counts: Any) -> float:
    return float(chisquare(counts).pvalue)


def test_reservoir_draws_are_uniform_whatever_has_been_seen_before() -> None:
    buffer = Buffer(SPEC, policy="reservoir", capacity=50, batch_size=20, seed=3)
    put(buffer, *range(30))
    for _ in range(3):
        buffer.try_get(20)
    put(buffer, *range(30, 50))  # the newcomers are unseen, the others mostly seen
    counts = np.bincount([i for _ in range(2000) for i in drawn(buffer.try_get(20))], minlength=50)
    assert p_value(counts) > 0.01
    # Independent draws with replacement: a batch of 20 from 50 holds a pair of equal ones nearly always, 3.5 on average.
    pairs = [20 - len(set(drawn(buffer.try_get(20)))) for _ in range(500)]
    expected = 20 - 50 * (1 - (49 / 50) ** 20)
    assert abs(np.mean(pairs) - expected) < 4 * np.std(pairs) / np.sqrt(len(pairs))


def test_reservoir_draws_depend_on_no_earlier_draw() -> None:
    buffer = Buffer(SPEC, policy="reservoir", capacity=6, batch_size=2, seed=4)
    put(buffer, *range(6))
    table = np.zeros((6, 6))
    for _ in range(6000):
        first, second = drawn(buffer.try_get(2))
        table[first, second] += 1
    assert p_value(table.ravel()) > 0.01


def test_evictions_are_uniform_over_the_seen_samples() -> None:
    counts = np.zeros(10, dtype=int)
    for seed in range(3000):
        buffer = Buffer(SPEC, policy="reservoir", capacity=10, batch_size=10, seed=seed)
        put(buffer, *range(10))
        seen = set(drawn(buffer.try_get(10)))
        put(buffer, 10)
        (gone,) = set(range(11)) - set(buffer.state_dict()["arrays"]["simulation"].tolist())
        assert gone in seen
        counts[gone] += 1
    assert p_value(counts) > 0.01


@pytest.mark.parametrize("policy", ["firo", "reservoir"])
def test_draws_that_remove_are_uniform(policy: Any) -> None:
    """The first sample to leave; a reservoir's draws remove while it drains."""
    counts = np.zeros(8, dtype=int)
    for seed in range(3000):
        buffer = Buffer(SPEC, policy=policy, capacity=8, batch_size=1, seed=seed)
        put(buffer, *range(8))
        buffer.end_production()
        counts[drawn(buffer.try_get(1))[0]] += 1
    assert p_value(counts) > 0.01


def test_fifo_keeps_the_order_of_commits_not_of_reservations() -> None:
    buffer = Buffer(SPEC, policy="fifo", capacity=4, batch_size=3)
    first, second, third = (buffer.reserve() for _ in range(3))
    for identifier, slot in enumerate((third, first, second)):
        slot.inputs[:] = identifier
        assert buffer.try_commit(slot)
    assert drawn(buffer.try_get(3)) == [0, 1, 2]


def test_fifo_takes_no_notice_of_the_watermark() -> None:
    buffer = Buffer(SPEC, policy="fifo", capacity=4, watermark=3, batch_size=2)
    put(buffer, 0, 1)
    assert drawn(buffer.try_get(2)) == [0, 1]


def test_a_reservoir_may_go_on_drawing_after_production_before_it_drains() -> None:
    buffer = Buffer(SPEC, policy="reservoir", capacity=20, watermark=10, batch_size=8, seed=5)
    put(buffer, *range(5))
    assert buffer.try_get(8) is None
    buffer.end_production(drain=False)
    for _ in range(10):
        assert len(drawn(buffer.try_get(8))) == 8
    assert buffer.stats().population == 5
    buffer.drain()
    assert sorted(drawn(buffer.try_get(3)) + drawn(buffer.try_get(8))) == list(range(5))
    assert buffer.drained
    assert buffer.try_get(8) is None
    assert buffer.get(8) is None


def test_a_sample_that_comes_after_the_end_is_still_trained_on() -> None:
    buffer = Buffer(SPEC, policy="firo", capacity=4, batch_size=2)
    buffer.end_production()
    assert buffer.drained
    put(buffer, 7)
    assert not buffer.drained
    assert drawn(buffer.get(2)) == [7]


def test_the_same_calls_with_the_same_seed_give_the_same_batches() -> None:
    def run(seed: int) -> list[int]:
        buffer = Buffer(SPEC, policy="reservoir", capacity=10, watermark=3, batch_size=4, seed=seed)
        out = []
        for identifier in range(60):
            slot = buffer.reserve()
            slot.inputs[:] = identifier
            while not buffer.try_commit(slot):
                out += drawn(buffer.try_get(4))
        buffer.end_production()
        while (batch := buffer.try_get(4)) is not None:
            out += drawn(batch)
        return out

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_more_samples_may_fill_than_there_are_spare_slots() -> None:
    buffer = Buffer(SPEC, policy="fifo", capacity=3, batch_size=1, spare=2)
    slots = [buffer.reserve() for _ in range(7)]
    for identifier, slot in enumerate(slots):
        slot.inputs[:] = slot.targets[:] = identifier
    out = []
    for slot in reversed(slots):
        assert buffer.try_commit(slot)
        out += drawn(buffer.try_get(1))
    assert out == [6, 5, 4, 3, 2, 1, 0]
    assert buffer.stats().spilled == 5


def test_a_batch_is_a_copy() -> None:
    buffer = Buffer(SPEC, policy="fifo", capacity=1, batch_size=1, spare=1)
    put(buffer, 1)
    batch = buffer.try_get(1)
    for identifier in (2, 3, 4):
        put(buffer, identifier)
        buffer.try_get(1)
    assert drawn(batch) == [1]


def test_mean_population_is_averaged_over_draws() -> None:
    buffer = Buffer(SPEC, policy="fifo", capacity=9, batch_size=2)
    assert buffer.stats().mean_population == 0.0
    put(buffer, *range(6))
    for _ in range(3):
        buffer.try_get(2)
    assert buffer.stats().mean_population == (6 + 4 + 2) / 3


def test_a_slot_is_committed_or_discarded_once() -> None:
    buffer = Buffer(SPEC, policy="fifo", capacity=9, batch_size=2)
    committed, discarded = buffer.reserve(), buffer.reserve()
    buffer.commit(committed)
    buffer.discard(discarded)
    for slot in (committed, discarded):
        for call in (buffer.commit, buffer.try_commit, buffer.discard):
            with pytest.raises(ValueError, match="committed or discarded before"):
                call(slot)
    assert buffer.stats().received == 1


@pytest.mark.parametrize("size", [0, -1, 3])
def test_a_batch_size_that_the_buffer_was_not_made_for(size: int) -> None:
    buffer = Buffer(SPEC, policy="fifo", capacity=9, batch_size=2)
    for call in (buffer.get, buffer.try_get):
        with pytest.raises(ValueError, match=f"a batch of {size} samples .* 1 to 2"):
            call(size)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "lifo"}, "policy = 'lifo': expected one of fifo, firo, reservoir"),
        ({"capacity": 0}, "capacity = 0: expected at least 1"),
        ({"watermark": -1}, "watermark = -1"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"presentations_per_sample": -1.0}, "presentations_per_sample = -1"),
        ({"policy": "reservoir", "watermark": 10}, "needs at least 11 .* above a watermark of 10; raise the capacity"),
        ({"policy": "firo", "watermark": 7}, "capacity = 10 .* firo buffer needs at least 11 to draw a batch of 4"),
        ({"policy": "fifo", "batch_size": 11}, "needs at least 11"),
        ({"policy": "firo", "presentations_per_sample": 2.0}, "= 2 with policy = 'firo'.*expected at most 1"),
    ],
)
def test_sizes_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    sizes: dict[str, Any] = {"policy": "fifo", "capacity": 10, "watermark": 0, "batch_size": 4, **options}
    with pytest.raises(ValueError, match=message):
        check_sizes(**sizes)
    with pytest.raises(ValueError, match=message):
        Buffer(SPEC, **sizes)


def test_a_buffer_without_spare_slots_is_refused() -> None:
    with pytest.raises(ValueError, match="spare = 0: expected at least 1"):
        Buffer(SPEC, policy="fifo", capacity=1, batch_size=1, spare=0)


def test_pinned_batches_need_a_gpu_and_are_pinned_where_there_is_one() -> None:
    options: dict[str, Any] = {"policy": "fifo", "capacity": 4, "batch_size": 2, "storage": partial(Storage, pin=True)}
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="pin = True, but torch sees no GPU"):
            Buffer(SPEC, **options)
        return
    buffer = Buffer(SPEC, **options)
    put(buffer, 0, 1)
    batch = buffer.try_get(2)
    assert drawn(batch) == [0, 1]
    assert batch is not None
    assert batch.inputs.is_pinned()
    assert batch.targets.is_pinned()
