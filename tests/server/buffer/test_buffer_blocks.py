"""Samples committed as blocks: all that follows is as if they had been committed one by one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buffers import in_memory
from penstock_server.buffer import Buffer, Slot, Slots
from penstock_server.study import FieldSpec, SampleSpec

SPEC = SampleSpec(parameters=("a",), fields=(FieldSpec("u", 1, (3,)),), window=2)


def block_of(buffer: Buffer, first: int, number: int) -> Slots:
    """Filled slots of samples first, first + 1, ..."""
    block = buffer.reserve_many(number)
    block.simulation, block.samples[:] = 7, np.arange(first, first + number)
    for row, sample in zip(block.rows, range(first, first + number), strict=True):
        block.inputs[row], block.targets[row] = sample, -sample
    return block


def singles_of(buffer: Buffer, first: int, number: int) -> list[Slot]:
    slots = [buffer.reserve() for _ in range(number)]
    for slot, sample in zip(slots, range(first, first + number), strict=True):
        slot.simulation, slot.sample = 7, sample
        slot.inputs[:], slot.targets[:] = sample, -sample
    return slots


def commit_singles(buffer: Buffer, slots: list[Slot]) -> int:
    """Commit as many as possible; returns their number."""
    for number, slot in enumerate(slots):
        if not buffer.try_commit(slot):
            return number
    return len(slots)


def assert_same_batch(one: Buffer, other: Buffer, size: int) -> bool:
    """Draw from both; returns whether there was a batch."""
    ours, theirs = one.try_get(size), other.try_get(size)
    assert (ours is None) == (theirs is None)
    if ours is None or theirs is None:
        return False
    np.testing.assert_array_equal(ours.inputs, theirs.inputs)
    np.testing.assert_array_equal(ours.targets, theirs.targets)
    np.testing.assert_array_equal(ours.targets[:, 0, 0], -ours.inputs[:, 0, 0])
    return True


def assert_same(one: Buffer, other: Buffer) -> None:
    """Same figures, same samples in the same order, same generator."""
    figures = [dataclasses.asdict(buffer.stats()) for buffer in (one, other)]
    states = [in_memory(buffer.state_dict()) for buffer in (one, other)]
    for figure, state in zip(figures, states, strict=True):
        # A block that does not fit into the spare slots has memory of its own; some single samples then still fit.
        for name in ("spilled", "snapshot_seconds"):
            del figure[name]
        del state["meta"]["counters"]["spilled"]
    assert figures[0] == figures[1]
    assert states[0]["meta"] == states[1]["meta"]
    for name, array in states[0]["arrays"].items():
        np.testing.assert_array_equal(array, states[1]["arrays"][name], err_msg=name)


@settings(max_examples=80, deadline=None)
@given(
    data=st.data(),
    policy=st.sampled_from(["fifo", "firo", "reservoir"]),
    room=st.integers(0, 9),
    watermark=st.integers(0, 4),
    batch_size=st.integers(1, 4),
    ratio=st.sampled_from([0.0, 0.3, 1.0, 3.0]),
    spare=st.integers(1, 12),
    seed=st.integers(0, 5),
)
def test_blocks_are_as_single_samples(
    data: st.DataObject,
    policy: Any,
    room: int,
    watermark: int,
    batch_size: int,
    ratio: float,
    spare: int,
    seed: int,
) -> None:
    needed = {"fifo": batch_size, "firo": watermark + batch_size, "reservoir": watermark + 1}[policy]
    options: dict[str, Any] = {
        "policy": policy,
        "capacity": needed + room,
        "watermark": watermark,
        "batch_size": batch_size,
        "presentations_per_sample": ratio if policy == "reservoir" else min(ratio, 1.0),
        "spare": spare,
        "seed": seed,
    }
    blocks, singles = Buffer(SPEC, **options), Buffer(SPEC, **options)
    first = 0
    for number in data.draw(st.lists(st.integers(1, 9), max_size=8)):
        block, slots = block_of(blocks, first, number), singles_of(singles, first, number)
        first += number
        begin = 0
        while begin < number:
            end = blocks.try_commit_many(block, begin)
            assert end == begin + commit_singles(singles, slots[begin:])
            assert_same(blocks, singles)
            if end == number:
                break
            begin = end
            if data.draw(st.booleans(), label="discard the rest"):
                blocks.discard_many(block, begin)
                for slot in slots[begin:]:
                    singles.discard(slot)
                break
            assert assert_same_batch(blocks, singles, batch_size), "neither a put nor a draw is possible"
        if data.draw(st.booleans(), label="draw"):
            assert_same_batch(blocks, singles, data.draw(st.integers(1, batch_size)))
        assert_same(blocks, singles)
    assert blocks._contents.population.taken == singles._contents.population.taken == 0
    for buffer in (blocks, singles):
        buffer.end_production()
    while assert_same_batch(blocks, singles, batch_size):
        pass
    assert_same(blocks, singles)


def test_a_block_is_of_the_storage_where_spare_slots_are_free() -> None:
    buffer = Buffer(SPEC, policy="fifo", capacity=9, batch_size=2, spare=4)
    stored, own = block_of(buffer, 0, 3), block_of(buffer, 3, 2)
    assert np.shares_memory(stored.inputs, buffer._contents.storage.inputs)
    assert not np.shares_memory(own.inputs, buffer._contents.storage.inputs)
    for block in (stored, own):
        assert block.inputs.dtype == block.targets.dtype == np.float32
        assert block.inputs.flags.c_contiguous
        assert block.targets.flags.c_contiguous
        assert block.rows.dtype == block.samples.dtype == np.int64
        assert block.inputs.shape[1:] == (2, SPEC.n_inputs)
        assert block.targets.shape[1:] == (2, SPEC.width)
    assert own.rows.tolist() == [0, 1]
    assert buffer.commit_many(own) == 2
    assert buffer.commit_many(stored) == 3
    batch = buffer.try_get(2)
    assert batch is not None
    assert batch.inputs[:, 0, 0].tolist() == [3, 4]
    assert buffer.stats().spilled == 2


@pytest.mark.parametrize("call", ["commit_many", "try_commit_many", "discard_many"])
def test_a_sample_of_a_block_is_committed_or_discarded_once(call: str) -> None:
    buffer = Buffer(SPEC, policy="fifo", capacity=9, batch_size=2)
    block, discarded, open_block = (block_of(buffer, first, 2) for first in (0, 2, 4))
    assert buffer.commit_many(block) == 2
    buffer.discard_many(discarded)
    again: Callable[[Slots, int], object] = getattr(buffer, call)
    for begin in (0, 1):
        with pytest.raises(ValueError, match="simulation 7, sample . has been committed or discarded before"):
            again(block, begin)
        with pytest.raises(ValueError, match="has been committed or discarded before"):
            again(discarded, begin)
    with pytest.raises(ValueError, match="begin = 1 of 2 slots of simulation 7: expected 0, the first"):
        again(open_block, 1)
    assert buffer.stats().received == 2
