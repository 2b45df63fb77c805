"""Batches are copied into memory that is used again, and never while it is still needed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_trainers import LINE, WINDOWS, samples, trainer, weights

from penstock_server.study import Batch
from penstock_server.training import Trainer
from penstock_server.training.staging import DEPTH, Staging


def test_a_batch_is_copied_and_the_original_may_be_overwritten() -> None:
    staging, batch = Staging(torch.device("cpu")), samples(LINE, 6)
    want = batch.targets.clone()
    with staging.on_device(batch) as moved:
        batch.targets.zero_()
        assert torch.equal(moved.targets, want)
        assert torch.equal(moved.inputs, batch.inputs)


def test_memory_is_used_again_in_turn_also_for_smaller_batches() -> None:
    staging, places = Staging(torch.device("cpu")), []
    for size in (6, 6, 6, 3, 8, 6):
        with staging.on_device(samples(LINE, size)) as moved:
            assert len(moved) == size
            places.append(moved.targets.data_ptr())
    assert DEPTH == 2
    assert places[0] == places[2]
    assert places[1] == places[3] != places[0]
    assert places[4] != places[0]  # it did not suffice


def test_a_place_waits_for_the_work_on_it_and_the_host_for_the_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of the calls that a GPU needs, recorded from those of torch.cpu."""
    calls: list[tuple[str, int]] = []

    class Event:
        def __init__(self) -> None:
            self.number = sum(name == "made" for name, _ in calls)
            calls.append(("made", self.number))

        def record(self, _stream: Any) -> None:
            calls.append(("record", self.number))

        def synchronize(self) -> None:
            calls.append(("wait", self.number))

    monkeypatch.setattr(torch.cpu, "Event", Event)
    monkeypatch.setattr(
        torch.cpu.Stream, "wait_event", lambda _stream, event: calls.append(("queue after", event.number))
    )
    staging = Staging(torch.device("cpu"))
    calls.clear()
    for _ in range(DEPTH + 1):
        with staging.on_device(samples(LINE, 2)):
            calls.append(("step", -1))
    copied, used = (0, 2), (1, 3)
    assert calls == [
        call
        for place in (0, 1, 0)
        for call in (
            ("wait", used[place]),
            ("record", copied[place]),
            ("queue after", copied[place]),
            ("step", -1),
            ("record", used[place]),
            ("wait", copied[place]),
        )
    ]


@pytest.mark.parametrize("spec", [LINE, WINDOWS])
def test_training_through_the_staging_gives_the_same_weights(spec: Any) -> None:
    plain, staged = trainer(spec), through_staging(trainer(spec))
    shared = samples(spec, 8)  # as page-locked memory, which the next batch overwrites
    for number, size in enumerate((8, 8, 8, 3)):
        batch = samples(spec, size, number)
        plain.step(batch)
        reused = Batch(shared.inputs[:size].copy_(batch.inputs), shared.targets[:size].copy_(batch.targets))
        staged.step(reused)
        shared.targets.fill_(torch.nan)
    assert torch.equal(weights(plain), weights(staged))


def through_staging(one: Trainer) -> Trainer:
    """A trainer on the CPU that stages its batches as one on a GPU does."""
    one._staging = Staging(one.device)
    return one
