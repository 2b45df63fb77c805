"""Samples in the memory of the device that trains: each is copied there once, and batches are gathered there."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penstock_server.buffer.storage import Floats, Indices
from penstock_server.study import Batch, SampleSpec

ROWS_BYTES = 64 * 2**20
"""Memory for samples on their way to a device, at most; for 2 to 64 samples."""

_GIB = 2**30


class DeviceStorage:
    """Memory for samples on a device; `storage.SampleStorage`.

    All copies and gathers are queued on one stream of the storage's own. So a batch holds a sample only once it has
    arrived, and a slot is overwritten only after the batches that were drawn from it.

    Args:
        spec: layout of a sample.
        slots: number of samples.
        device: where they are kept. On a CPU the same calls copy at once.

    Attributes:
        spec: as given.
        slots: as given.
        inputs: (slots, window, n_inputs) float32.
        targets: (slots, window, width) float32.
        in_place: False: no producer writes on the device.

    Raises:
        ValueError: the device's memory does not suffice.
    """

    in_place = False

    def __init__(self, spec: SampleSpec, slots: int, device: torch.device) -> None:
        self.spec, self.slots = spec, slots
        self._device, self._on_gpu = device, device.type == "cuda"
        self._torch: Any = torch.get_device_module(device)  # torch.cuda or torch.cpu, which has the same calls
        if self._on_gpu:
            _check_memory(spec, slots, device)
        self._stream = self._torch.Stream(device)
        ring = min(64, max(2, ROWS_BYTES // spec.bytes))
        self.inputs, self.targets = (
            DeviceRows(torch.empty((slots, spec.window, width), device=device), self._torch, self._stream, ring)
            for width in (spec.n_inputs, spec.width)
        )
        self._stream.wait_stream(self._torch.current_stream(device))

    def gather(self, slots: Indices) -> Batch:
        """Copy samples into a new batch on the device, for use on the current stream."""
        with self._torch.stream(self._stream):
            rows = torch.from_numpy(slots).to(self._device)
            batch = Batch(self.inputs.tensor.index_select(0, rows), self.targets.tensor.index_select(0, rows))
        work = self._torch.current_stream(self._device)
        work.wait_stream(self._stream)
        if self._on_gpu:  # its memory belongs to the storage's stream, and must not be used again while `work` reads it
            batch.inputs.record_stream(work)
            batch.targets.record_stream(work)
        return batch


class DeviceRows:
    """A tensor on a device that is written and read from the host like an array.

    A row that is written goes through a row of page-locked memory, which is used again when its copy is done. So whoever
    writes does not wait for the device, unless all these rows are under way.

    Args:
        tensor: the rows.
        module: torch's module of the device.
        stream: where all copies are queued.
        ring: rows that may be under way at once.

    Attributes:
        tensor: as given.
        shape: of the tensor.
    """

    def __init__(self, tensor: Tensor, module: Any, stream: Any, ring: int) -> None:
        self.tensor, self.shape = tensor, tuple(tensor.shape)
        self._torch, self._stream, self._turn = module, stream, 0
        self._under_way = torch.empty((ring, *self.shape[1:]), pin_memory=tensor.is_cuda)
        self._copied = [module.Event() for _ in range(ring)]

    def __len__(self) -> int:
        """Number of rows."""
        return self.shape[0]

    def __setitem__(self, at: int | slice, values: Floats) -> None:
        """Write a row, which may be overwritten afterwards; or several at once, and wait for them."""
        if isinstance(at, slice):
            with self._torch.stream(self._stream):
                self.tensor[at].copy_(torch.from_numpy(np.ascontiguousarray(values)))
            self._torch.synchronize(self.tensor.device)
            return
        row, copied = self._under_way[self._turn], self._copied[self._turn]
        self._turn = (self._turn + 1) % len(self._copied)
        copied.synchronize()
        row.numpy()[:] = values
        with self._torch.stream(self._stream):
            self.tensor[at].copy_(row, non_blocking=True)
            copied.record(self._stream)

    def __getitem__(self, at: int) -> Floats:
        """Return a copy of a row."""
        row: Floats = self.take(np.array([at]))[0]
        return row

    def take(self, rows: Indices, axis: int = 0) -> Floats:
        """Return a copy of rows, as numpy's `take` along the first axis."""
        with self._torch.stream(self._stream):
            index = torch.from_numpy(rows).to(self.tensor.device)
            found: Floats = self.tensor.index_select(axis, index).cpu().numpy()
        return found


def _check_memory(spec: SampleSpec, slots: int, device: torch.device) -> None:
    needed, free = slots * spec.bytes, torch.cuda.mem_get_info(device)[0]
    if needed > free:
        raise ValueError(
            f'[buffer] storage = "device": {slots} samples of {spec.bytes:,} bytes take {needed / _GIB:.1f} GiB, but '
            f"{free / _GIB:.1f} GiB of {device} are free; lower [buffer] capacity to {math.floor(0.8 * free / spec.bytes)} "
            'samples, which leaves room for the model, or set storage = "host"'
        )
