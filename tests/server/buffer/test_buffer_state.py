"""Checkpoints of a buffer: they continue identically, and states that do not fit are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from buffers import in_memory
from penstock_server.buffer import Buffer, BufferState, snapshot
from penstock_server.study import FieldSpec, SampleSpec

SPEC = SampleSpec(parameters=("a",), fields=(FieldSpec("u", 1, (4,)),))
OPTIONS: dict[str, Any] = {"policy": "reservoir", "capacity": 8, "batch_size": 3, "seed": 1}


def used_buffer() -> Buffer:
    """12 samples received, 4 of them evicted, one slot still filling."""
    buffer = Buffer(SPEC, **OPTIONS)
    for identifier in range(12):
        slot = buffer.reserve()
        slot.inputs[:] = slot.targets[:] = identifier
        slot.simulation, slot.sample = identifier, 100
        while not buffer.try_commit(slot):
            buffer.try_get(3)
    buffer.reserve()
    return buffer


@pytest.fixture
def state() -> BufferState:
    return in_memory(used_buffer().state_dict())


@pytest.mark.parametrize("policy", ["fifo", "firo", "reservoir"])
def test_a_restored_buffer_continues_identically(policy: str) -> None:
    """The same puts into both, draws whenever one is possible, then the end: the same batches and the same evictions."""
    options = {**OPTIONS, "policy": policy, "capacity": 20, "watermark": 4, "presentations_per_sample": 0.5}

    def put_and_draw(buffer: Buffer, identifiers: range) -> list[list[float]]:
        out = []
        for identifier in identifiers:
            slot = buffer.reserve()
            slot.inputs[:] = slot.targets[:] = identifier
            slot.simulation = identifier
            while not buffer.try_commit(slot):
                out.append(next_batch(buffer))
            if identifier % 3 == 0 and (batch := buffer.try_get(2)) is not None:
                out.append(batch.targets[:, 0, 0].tolist())
        return out

    def next_batch(buffer: Buffer) -> list[float]:
        batch = buffer.try_get(3)
        assert batch is not None
        return batch.targets[:, 0, 0].tolist()

    original, restored = Buffer(SPEC, **options), Buffer(SPEC, **options)
    put_and_draw(original, range(70))
    restored.load_state_dict(in_memory(original.state_dict()))
    assert put_and_draw(restored, range(70, 200)) == put_and_draw(original, range(70, 200))
    assert restored.identifiers() == original.identifiers()
    for buffer in (original, restored):
        buffer.end_production()
    while not original.drained:
        assert next_batch(restored) == next_batch(original)
    assert restored.drained


def test_figures_survive(state: BufferState) -> None:
    before, buffer = used_buffer().stats(), Buffer(SPEC, **OPTIONS)
    buffer.load_state_dict(state)
    after = buffer.stats()
    assert after.evicted == before.evicted == 4
    for name in ("received", "presentations", "trained_unique", "batches", "mean_population", "times_seen", "unseen"):
        assert getattr(after, name) == getattr(before, name)
    assert after.put_blocked_seconds == state["meta"]["put_blocked_seconds"]
    assert after.stall_seconds == state["meta"]["stall_seconds"]


def test_a_state_is_of_its_moment_whatever_happens_before_it_is_read() -> None:
    """Every sample is drawn, evicted and overwritten between the two arrays' being read, and before."""
    for read_first in (0, 3, 8):
        buffer, twin = used_buffer(), used_buffer()
        state, expected = buffer.state_dict(), in_memory(twin.state_dict())
        rows = iter(state["arrays"]["inputs"].chunks())
        inputs = [next(rows)] if read_first else []
        for identifier in range(read_first * 4):
            buffer.try_get(3)
            slot = buffer.reserve()
            slot.inputs[:] = slot.targets[:] = 99 + identifier
            assert buffer.commit(slot)
        inputs += list(rows)
        np.testing.assert_array_equal(np.concatenate(inputs), expected["arrays"]["inputs"])
        np.testing.assert_array_equal(np.asarray(state["arrays"]["targets"]), expected["arrays"]["targets"])
        assert state["meta"]["counters"] == expected["meta"]["counters"]
        assert buffer.stats().snapshot_seconds > 0
        with pytest.raises(RuntimeError, match="can be read once"):
            np.asarray(state["arrays"]["targets"])


def test_a_state_takes_pieces_rather_than_a_second_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "CHUNK_BYTES", 2 * 4 * SPEC.width)
    buffer = used_buffer()
    state = buffer.state_dict()
    assert [len(piece) for piece in state["arrays"]["targets"].chunks()] == [2, 2, 2, 2]
    kept = len(buffer._contents._snapshots)
    del state
    assert (kept, len(buffer._contents._snapshots)) == (1, 0)  # a state that nobody will read costs nothing any more


@pytest.mark.parametrize(
    ("options", "spec", "message"),
    [
        ({"policy": "firo"}, SPEC, "policy 'reservoir', this one 'firo'"),
        ({"capacity": 7}, SPEC, "holds 8 samples, capacity is 7: raise the capacity"),
        ({}, SampleSpec(("a", "b"), SPEC.fields), r"inputs have shape \(1, 2\) a sample, expected \(1, 3\)"),
        (
            {},
            SampleSpec(("a",), (FieldSpec("u", 1, (5,)),)),
            r"targets have shape \(1, 4\) a sample, expected \(1, 5\)",
        ),
    ],
)
def test_a_state_that_does_not_fit_is_refused(
    state: BufferState, options: dict[str, Any], spec: SampleSpec, message: str
) -> None:
    buffer = Buffer(spec, **{**OPTIONS, **options})
    with pytest.raises(ValueError, match=message):
        buffer.load_state_dict(state)
    assert buffer.stats().population == buffer.stats().received == 0


@pytest.mark.parametrize("damage", [{"arrival": np.array([0, 1, 2])}, {"arrival": np.array([0, 1, 2, 3, 4, 5, 6, 9])}])
def test_a_damaged_state_is_refused(state: BufferState, damage: dict[str, Any]) -> None:
    buffer = Buffer(SPEC, **OPTIONS)
    state["arrays"].update(damage)
    with pytest.raises(ValueError, match=r"damaged|do not agree"):
        buffer.load_state_dict(state)
    assert buffer.stats().population == 0


def test_a_state_goes_only_into_an_unused_buffer(state: BufferState) -> None:
    with pytest.raises(RuntimeError, match="has not been used"):
        used_buffer().load_state_dict(state)
    filling = Buffer(SPEC, **OPTIONS)
    filling.reserve()
    with pytest.raises(RuntimeError, match="has not been used"):
        filling.load_state_dict(state)


def test_identifiers_of_what_is_held(state: BufferState) -> None:
    held = used_buffer().identifiers()
    assert held == [(simulation, 100) for simulation in state["arrays"]["simulation"].tolist()]
    assert len(set(held)) == 8


def test_a_larger_buffer_takes_the_state_over(state: BufferState) -> None:
    buffer = Buffer(SPEC, **{**OPTIONS, "capacity": 20, "spare": 3})
    buffer.load_state_dict(state)
    assert buffer.stats().population == 8
    assert buffer.stats().capacity == 20


def test_figures_do_not_look_at_each_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures are read several times a second under the lock of the buffer, so reading must not cost more for more samples."""
    buffer = Buffer(SPEC, policy="reservoir", capacity=8, batch_size=2)
    for number in range(8):
        slot = buffer.reserve()
        slot.simulation, slot.sample = 0, number
        assert buffer.try_commit(slot)
    assert buffer.try_get(2) is not None
    monkeypatch.setattr(buffer._contents.population, "held", None)
    monkeypatch.setattr(buffer._contents.times_seen, "held", None)
    assert sum(buffer.stats().times_seen.values()) == 8
