"""Batches on their way to the device, copied on a stream of their own while the step before them runs.

A training step on a GPU is only queued when `Trainer.step` returns. So the next batch is drawn, and copied here, while
the GPU computes, and no batch is drawn earlier than it is trained on: counts and checkpoints stay what they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from penstock_server.study import Batch

DEPTH = 2
"""Batches on the device: one that is trained on, and one that is copied meanwhile."""


class Staging:
    """Copies batches to a device into memory that is used again.

    The host is at most `DEPTH` steps ahead of the device.

    Args:
        device: of the model. On a CPU the same calls copy at once.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._torch: Any = torch.get_device_module(device)  # torch.cuda or torch.cpu, which has the same calls
        self._stream = self._torch.Stream(device)
        self._places = [_Place(self._torch) for _ in range(DEPTH)]
        self._turn = 0

    @contextmanager
    def on_device(self, batch: Batch) -> Iterator[Batch]:
        """Have a copy of a batch on the device for the work that is queued inside the context.

        Args:
            batch: on the host; asynchronous if it is in page-locked memory. It may be overwritten after the context.
                A batch that is on a GPU is not copied.

        Yields:
            The copy, for use on the current stream. It is overwritten later.
        """
        place = self._places[self._turn]
        self._turn = (self._turn + 1) % DEPTH
        place.used.synchronize()
        work = self._torch.current_stream(self._device)
        if batch.inputs.is_cuda:
            yield batch
            place.used.record(work)
            return
        with self._torch.stream(self._stream):
            moved = Batch(
                place.copy("inputs", batch.inputs, self._device), place.copy("targets", batch.targets, self._device)
            )
            place.copied.record(self._stream)
        work.wait_event(place.copied)
        try:
            yield moved
        finally:
            place.used.record(work)
            place.copied.synchronize()


class _Place:
    """Memory for one batch on the device.

    Args:
        module: torch's module of the device.

    Attributes:
        copied: after the copy into it.
        used: after the work on it.
    """

    def __init__(self, module: Any) -> None:
        self.copied, self.used = module.Event(), module.Event()
        self._memory: dict[str, Tensor] = {}

    def copy(self, name: str, rows: Tensor, device: torch.device) -> Tensor:
        """Copy rows into the memory of this name, made larger where it does not suffice."""
        memory = self._memory.get(name)
        if memory is None or len(memory) < len(rows) or memory.shape[1:] != rows.shape[1:]:
            memory = self._memory[name] = torch.empty_like(rows, device=device)
        return memory[: len(rows)].copy_(rows, non_blocking=True)
