"""Samples in the memory of the device that trains: each is copied there once, and batches are gathered there."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penstock_server.buffer.storage import Floats, Indices
from penstock_server.study import Batch, SampleSpec

ROW_BYTES = 64 * 2**20
"""Memory for rows on their way to a device, at most; 2 to 64 rows."""

_GIB = 2**30


class DeviceStorage:
    """Memory for samples on a device; `storage.SampleStorage`.

    All copies and gathers are queued on one stream of the storage's own. So a batch holds a sample only once it has
    arrived, and a slot is overwritten only after the batches that were drawn from it. A sample goes through a row of
    page-locked memory, which is used again when its copy is done: producers do not wait for the device otherwise.

    Args:
        spec: layout of a sample.
        slots: number of samples.
        device: where they are kept. On a CPU the same calls copy at once.

    Attributes:
        slots: as given.
        inputs: (slots, window, n_inputs) float32, on the device.
        targets: (slots, window, width) float32, on the device.
        in_place: False: no producer writes on the device.

    Raises:
        ValueError: the device's memory does not suffice.
    """

    in_place = False

    def __init__(self, spec: SampleSpec, slots: int, device: torch.device) -> None:
        self.slots = slots
        self._device, self._on_gpu = device, device.type == "cuda"
        self._torch: Any = torch.get_device_module(device)  # torch.cuda or torch.cpu, which has the same calls
        if self._on_gpu:
            _check_memory(spec, slots, device)
        self._stream = self._torch.Stream(device)
        self.inputs = torch.empty((slots, spec.window, spec.n_inputs), device=device)
        self.targets = torch.empty((slots, spec.window, spec.width), device=device)
        self._stream.wait_stream(self._torch.current_stream(device))
        number = min(64, max(2, ROW_BYTES // spec.bytes))
        self._rows = [_Row(self._torch, self.inputs, self.targets, pin=self._on_gpu) for _ in range(number)]
        self._turn = 0

    def put(self, slot: int, inputs: Floats, targets: Floats) -> None:
        """Copy a sample into a slot; waits only where all rows are still under way."""
        row = self._rows[self._turn]
        self._turn = (self._turn + 1) % len(self._rows)
        row.copied.synchronize()
        row.inputs.numpy()[:], row.targets.numpy()[:] = inputs, targets
        with self._torch.stream(self._stream):
            self.inputs[slot].copy_(row.inputs, non_blocking=True)
            self.targets[slot].copy_(row.targets, non_blocking=True)
            row.copied.record(self._stream)

    def gather(self, slots: Indices) -> Batch:
        """Copy samples into a new batch on the device, for use on the current stream."""
        with self._torch.stream(self._stream):
            rows = torch.from_numpy(slots).to(self._device)
            batch = Batch(self.inputs.index_select(0, rows), self.targets.index_select(0, rows))
        work = self._torch.current_stream(self._device)
        work.wait_stream(self._stream)
        if self._on_gpu:  # its memory belongs to the storage's stream, and must not be used again while `work` reads it
            batch.inputs.record_stream(work)
            batch.targets.record_stream(work)
        return batch

    def read(self, which: int, slots: Indices) -> Floats:
        """Return copies of inputs (0) or targets (1) on the host."""
        with self._torch.stream(self._stream):
            rows = (self.inputs, self.targets)[which].index_select(0, torch.from_numpy(slots).to(self._device))
            return rows.cpu().numpy()

    def load(self, inputs: Floats, targets: Floats) -> None:
        """Copy samples into the first slots."""
        with self._torch.stream(self._stream):
            for own, rows in ((self.inputs, inputs), (self.targets, targets)):
                own[: len(rows)].copy_(torch.from_numpy(np.ascontiguousarray(rows)))
        self._torch.synchronize(self._device)


class _Row:
    """Memory of the host for one sample on its way to the device.

    Args:
        module: torch's module of the device.
        inputs: of the storage.
        targets: of the storage.
        pin: whether the memory is page-locked.

    Attributes:
        inputs: (window, n_inputs).
        targets: (window, width).
        copied: after the copy to the device.
    """

    def __init__(self, module: Any, inputs: Tensor, targets: Tensor, *, pin: bool) -> None:
        self.inputs, self.targets = (torch.empty(t.shape[1:], pin_memory=pin) for t in (inputs, targets))
        self.copied = module.Event()


def _check_memory(spec: SampleSpec, slots: int, device: torch.device) -> None:
    needed, free = slots * spec.bytes, torch.cuda.mem_get_info(device)[0]
    if needed > free:
        raise ValueError(
            f'[buffer] storage = "device": {slots} samples of {spec.bytes:,} bytes take {needed / _GIB:.1f} GiB, but '
            f"{free / _GIB:.1f} GiB of {device} are free; lower [buffer] capacity to {math.floor(0.8 * free / spec.bytes)} "
            'samples, which leaves room for the model, or set storage = "host"'
        )
