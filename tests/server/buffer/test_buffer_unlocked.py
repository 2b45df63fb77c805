"""What happens while no lock is held: a batch is gathered, or the state is copied, and samples come and go meanwhile."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import numpy as np
import pytest

from buffers import in_memory
from penstock_server.buffer import Buffer
from penstock_server.buffer.journal import Journal
from penstock_server.buffer.storage import Indices
from penstock_server.study import Batch, FieldSpec, SampleSpec
from waiting import PATIENCE, wait_for

SPEC = SampleSpec(parameters=(), fields=(FieldSpec("u", 1, (4,)),))
POLICIES = pytest.mark.parametrize("policy", ["fifo", "firo", "reservoir"])


def put(buffer: Buffer, identifier: int) -> bool:
    """Put a sample into a slot of the storage; False where there is no such slot or no room."""
    slot = buffer.reserve()
    slot.inputs[:] = slot.targets[:] = slot.simulation = slot.sample = identifier
    if slot.stored and buffer.try_commit(slot):
        return True
    buffer.discard(slot)
    return False


def used(policy: Any, seed: int) -> Buffer:
    """A full buffer with some seen samples (reservoir)."""
    buffer = Buffer(SPEC, policy=policy, capacity=8, batch_size=4, spare=3, seed=seed)
    for identifier in range(11):
        while not put(buffer, identifier):
            buffer.try_get(2)
    return buffer


class Use:
    """Puts and draws, as other threads would do them meanwhile."""

    def __init__(self, buffer: Buffer) -> None:
        self.buffer, self.identifiers = buffer, count(100)

    def __call__(self) -> None:
        for _ in range(4):
            put(self.buffer, next(self.identifiers))
        self.buffer.try_get(3)
        put(self.buffer, next(self.identifiers))


@POLICIES
@pytest.mark.parametrize("seed", range(5))
def test_no_sample_is_overwritten_while_it_is_gathered(policy: Any, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = used(policy, seed)
    storage, identifiers = buffer._contents.storage, count(100)
    gather, evicted = storage.gather, []

    def gather_late(slots: Indices) -> Batch:
        expected = storage.targets[slots, 0, 0].tolist()
        while put(buffer, next(identifiers)):
            pass
        evicted.extend(set(slots.tolist()) - set(buffer._contents.population.held().tolist()))
        batch = gather(slots)
        assert batch.targets[:, 0, 0].tolist() == expected
        assert batch.inputs[:, 0, 0].tolist() == expected
        return batch

    monkeypatch.setattr(storage, "gather", gather_late)
    for _ in range(4):
        assert buffer.try_get(4) is not None
        assert buffer._contents.population.taken == 0  # slots of gathered samples that have left are free again
    assert evicted, "no sample left while it was gathered: this test shows nothing"


def test_a_sample_with_memory_of_its_own_waits_until_a_batch_has_been_gathered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The slots of the batch are not free before; no other slot need be."""
    buffer = Buffer(SPEC, policy="fifo", capacity=3, batch_size=3, spare=1)
    for identifier in range(3):
        assert put(buffer, identifier)
    storage, gathering, go_on = buffer._contents.storage, threading.Event(), threading.Event()
    gather = storage.gather

    def gather_late(slots: Indices) -> Batch:
        gathering.set()
        assert go_on.wait(PATIENCE)
        return gather(slots)

    monkeypatch.setattr(storage, "gather", gather_late)
    with ThreadPoolExecutor(2) as threads:
        batch = threads.submit(buffer.get, 3)
        assert gathering.wait(PATIENCE)
        buffer.reserve()
        slot = buffer.reserve()
        assert not slot.stored
        slot.inputs[:] = slot.targets[:] = 3
        commit = threads.submit(buffer.try_commit, slot)
        try:
            wait_for(lambda: len(buffer._may_put._waiters) > 0)  # type: ignore[attr-defined]
            assert buffer.stats().received == 3
        finally:
            go_on.set()
        drawn = batch.result(PATIENCE)
        assert drawn is not None
        assert drawn.targets[:, 0, 0].tolist() == [0, 1, 2]
        assert commit.result(PATIENCE) is True
    last = buffer.get(1) if buffer.stats().population >= 1 else None
    assert last is not None
    assert last.targets[:, 0, 0].tolist() == [3]


@POLICIES
@pytest.mark.parametrize("seed", range(5))
def test_a_state_is_of_its_moment_whatever_happens_while_it_is_copied(
    policy: Any, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer, expected = used(policy, seed), in_memory(used(policy, seed).state_dict())
    use, copy = Use(buffer), Journal.copy

    def copy_late(journal: Journal, number: int) -> Indices:
        use()
        copied = copy(journal, number)
        use()
        return copied

    class Rows(np.ndarray):  # type: ignore[type-arg]
        def take(self, *args: Any, **options: Any) -> Any:
            use()
            return super().take(*args, **options)

    monkeypatch.setattr(Journal, "copy", copy_late)
    state = buffer.state_dict()
    assert not buffer._contents.population.order.journals
    snapshot = state["arrays"]["inputs"]._snapshot
    snapshot._arrays = tuple(array.view(Rows) for array in snapshot._arrays)
    read = in_memory(state)
    assert next(use.identifiers) > 130
    for name, array in expected["arrays"].items():
        np.testing.assert_array_equal(read["arrays"][name], array, err_msg=name)
    for name in ("policy", "unseen", "counters", "rng"):
        assert read["meta"][name] == expected["meta"][name]
