"""A buffer that keeps its samples on a device draws the same batches as one that keeps them on the host."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from buffers import in_memory
from penstock_server.buffer import Buffer, DeviceStorage, Storage, StorageMaker
from penstock_server.study import Batch, FieldSpec, SampleSpec

SPEC = SampleSpec(("a",), (FieldSpec("u", 1, (5,)),), window=2)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def make(device: str | None, policy: Any = "reservoir", *, capacity: int = 8, spec: SampleSpec = SPEC) -> Buffer:
    storage: StorageMaker = Storage if device is None else partial(DeviceStorage, device=torch.device(device))
    return Buffer(spec, policy=policy, capacity=capacity, watermark=2, batch_size=4, seed=1, storage=storage)


def put(buffer: Buffer, sample: int) -> bool:
    """Put a sample whose numbers tell which it is, or fail to; its memory is overwritten afterwards."""
    slot = buffer.reserve()
    slot.inputs[:] = sample
    slot.targets[:] = sample + np.arange(slot.targets.size, dtype=np.float32).reshape(slot.targets.shape) / 100
    slot.simulation, slot.sample = 0, sample
    inputs, targets = slot.inputs, slot.targets
    if not buffer.try_commit(slot):
        buffer.discard(slot)
        return False
    if not buffer._contents.storage.in_place:
        inputs[:], targets[:] = np.nan, np.nan
    return True


def on_host(batch: Batch | None) -> tuple[Any, Any] | None:
    return None if batch is None else (batch.inputs.cpu().numpy().tolist(), batch.targets.cpu().numpy().tolist())


def figures(buffer: Buffer) -> dict[str, Any]:
    return asdict(replace(buffer.stats(), put_blocked_seconds=0.0, stall_seconds=0.0, snapshot_seconds=0.0))


def arrays(buffer: Buffer) -> dict[str, Any]:
    return {name: array.tolist() for name, array in in_memory(buffer.state_dict())["arrays"].items()}


@pytest.mark.parametrize("device", DEVICES)
@given(policy=st.sampled_from(["reservoir", "firo", "fifo"]), steps=st.lists(st.integers(0, 4), max_size=60))
@settings(max_examples=40)
def test_the_same_calls_give_the_same_batches(device: str, policy: Any, steps: list[int]) -> None:
    """A step of 0 puts a sample, another number draws so many."""
    host, other = make(None, policy), make(device, policy)
    for number, step in enumerate([0, 0, 0, *steps]):
        if step:
            assert on_host(host.try_get(step)) == on_host(other.try_get(step))
        else:
            assert put(host, number) == put(other, number)
    assert figures(host) == figures(other)
    assert arrays(host) == arrays(other)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("back", [False, True])
def test_a_checkpoint_of_one_goes_on_as_the_other(device: str, back: bool) -> None:
    first, second = (device, None) if back else (None, device)
    one, two = make(first), make(second)
    for number in range(6):
        put(one, number)
    one.try_get(4)
    two.load_state_dict(in_memory(one.state_dict()))
    for number in range(6, 12):
        assert put(one, number) == put(two, number)
        assert on_host(one.try_get(3)) == on_host(two.try_get(3))


@pytest.mark.parametrize("device", DEVICES)
def test_a_snapshot_keeps_what_is_evicted_before_it_is_read(device: str) -> None:
    buffer = make(device)
    for number in range(8):
        put(buffer, number)
    for _ in range(20):
        buffer.try_get(4)
    before, state = arrays(buffer), buffer.state_dict()
    assert sum(put(buffer, number) for number in range(8, 14)) == 6  # each evicts one
    late = {name: np.asarray(array).tolist() for name, array in state["arrays"].items()}
    assert late["targets"] == before["targets"]
    assert late["inputs"] == before["inputs"]


@pytest.mark.parametrize("device", DEVICES)
def test_more_samples_than_rows_under_way(device: str) -> None:
    buffer = make(device, "fifo", capacity=300)
    for number in range(300):
        assert put(buffer, number)
    drawn = [on_host(buffer.try_get(4)) for _ in range(70)]
    assert [row[0][0] for batch in drawn if batch is not None for row in batch[0]] == list(range(280))


@pytest.mark.gpu
def test_samples_that_the_gpu_cannot_hold_are_refused() -> None:
    large = SampleSpec(("a",), (FieldSpec("u", 1, (10**8,)),))
    with pytest.raises(
        ValueError, match=r'storage = "device": \d+ samples of .* lower \[buffer\] capacity to \d+ samples'
    ):
        make("cuda", capacity=10**6, spec=large)
