"""The storage of samples: two contiguous float32 arrays, allocated once. `population` knows which slots are in use.

`Storage` keeps them on the host, `device_storage.DeviceStorage` on the device that trains.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penstock_server.study import Batch, SampleSpec

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


class SampleStorage(Protocol):
    """Memory for samples. The buffer calls it with its lock held."""

    @property
    def slots(self) -> int:
        """Number of samples."""

    @property
    def inputs(self) -> Any:
        """(slots, window, n_inputs) float32: an array, or a tensor."""

    @property
    def targets(self) -> Any:
        """(slots, window, width) float32: an array, or a tensor."""

    @property
    def in_place(self) -> bool:
        """Whether producers may write into `inputs` and `targets` themselves; else samples are `put`."""

    def put(self, slot: int, inputs: Floats, targets: Floats) -> None:
        """Copy a sample into a slot; the sample may be overwritten once this has returned."""

    def gather(self, slots: Indices) -> Batch:
        """Copy samples into a batch.

        Args:
            slots: slots of the samples, (n,), in the order of the batch; a slot may be given more than once.
        """

    def read(self, which: int, slots: Indices) -> Floats:
        """Copy inputs (0) or targets (1) of samples into an array, in the order of their slots."""

    def load(self, inputs: Floats, targets: Floats) -> None:
        """Copy samples into the first slots."""


StorageMaker = Callable[[SampleSpec, int], SampleStorage]
"""Makes storage for a number of samples of this layout."""


class Storage:
    """Memory for samples, on the host, not initialised: the system provides pages as they are first written.

    Args:
        spec: layout of a sample.
        slots: number of samples.
        pin: gather batches into page-locked memory, from which a GPU copies asynchronously. The storage itself stays
            pageable: no device reads it, and torch rounds page-locked blocks up to a power of two, which would waste
            gigabytes here.

    Attributes:
        inputs: (slots, window, n_inputs) float32.
        targets: (slots, window, width) float32.

    Raises:
        ValueError: `pin` without a GPU.
    """

    def __init__(self, spec: SampleSpec, slots: int, *, pin: bool = False) -> None:
        if pin and not torch.cuda.is_available():
            raise ValueError("pin = True, but torch sees no GPU: page-locked memory needs one; use pin = False")
        self.spec = spec
        self.slots = slots
        self._pin = pin
        self.inputs: Floats = np.empty((slots, spec.window, spec.n_inputs), dtype=np.float32)
        self.targets: Floats = np.empty((slots, spec.window, spec.width), dtype=np.float32)

    in_place = True

    def put(self, slot: int, inputs: Floats, targets: Floats) -> None:
        """Copy a sample into a slot."""
        self.inputs[slot], self.targets[slot] = inputs, targets

    def read(self, which: int, slots: Indices) -> Floats:
        """Return copies of inputs (0) or targets (1)."""
        return (self.inputs, self.targets)[which][slots]

    def load(self, inputs: Floats, targets: Floats) -> None:
        """Copy samples into the first slots."""
        self.inputs[: len(inputs)], self.targets[: len(targets)] = inputs, targets

    def gather(self, slots: Indices) -> Batch:
        """Copy samples into a new batch."""
        return Batch(self._gather(self.inputs, slots), self._gather(self.targets, slots))

    def _gather(self, rows: Floats, slots: Indices) -> Tensor:
        out = torch.empty((slots.size, *rows.shape[1:]), dtype=torch.float32, pin_memory=self._pin)
        # torch.index_select would copy on OpenMP threads, which wait for each other for tens of milliseconds where
        # solvers keep the cores busy, with the buffer locked. With mode "clip" numpy writes into `out` without a
        # temporary array.
        rows.take(slots, axis=0, out=out.numpy(), mode="clip")
        return out
