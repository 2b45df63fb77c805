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

from penstock_server.study import Batch, BatchMemory, SampleSpec

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


class SampleStorage(Protocol):
    """Memory for samples."""

    @property
    def spec(self) -> SampleSpec:
        """Layout of a sample."""

    @property
    def slots(self) -> int:
        """Number of samples."""

    @property
    def inputs(self) -> Any:
        """(slots, window, n_inputs) float32: an array, or what is written and read like one."""

    @property
    def targets(self) -> Any:
        """(slots, window, width) float32, likewise."""

    @property
    def in_place(self) -> bool:
        """Whether producers may write into `inputs` and `targets` themselves; else their samples are copied there."""

    def gather(self, slots: Indices) -> Batch:
        """Copy samples into a new batch.

        Args:
            slots: slots of the samples, (n,), in the order of the batch; a slot may be given more than once.
        """


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
        in_place: True.

    Raises:
        ValueError: `pin` without a GPU.
    """

    in_place = True

    def __init__(self, spec: SampleSpec, slots: int, *, pin: bool = False) -> None:
        if pin and not torch.cuda.is_available():
            raise ValueError("pin = True, but torch sees no GPU: page-locked memory needs one; use pin = False")
        self.spec = spec
        self.slots = slots
        self._pin = pin
        self._batches = BatchMemory()
        self.inputs: Floats = np.empty((slots, spec.window, spec.n_inputs), dtype=np.float32)
        self.targets: Floats = np.empty((slots, spec.window, spec.width), dtype=np.float32)

    def gather(self, slots: Indices) -> Batch:
        """Copy samples into a new batch.

        Args:
            slots: slots of the samples, (n,), in the order of the batch; a slot may be given more than once.
        """
        return Batch(self._gather(self.inputs, slots), self._gather(self.targets, slots))

    def _gather(self, rows: Floats, slots: Indices) -> Tensor:
        shape = (slots.size, *rows.shape[1:])
        out = torch.empty(shape, pin_memory=True) if self._pin else self._batches.tensor(shape)
        # torch.index_select would copy on OpenMP threads, which wait for each other for tens of milliseconds where
        # solvers keep the cores busy, with the buffer locked. With mode "clip" numpy writes into `out` without a
        # temporary array.
        rows.take(slots, axis=0, out=out.numpy(), mode="clip")
        return out


def own_memory(spec: SampleSpec, number: int) -> tuple[Floats, Floats]:
    """Return memory for samples outside the storage, not initialised.

    Args:
        spec: layout of a sample.
        number: samples.

    Returns:
        Inputs (number, window, n_inputs) and targets (number, window, width), float32.
    """
    inputs = np.empty((number, spec.window, spec.n_inputs), dtype=np.float32)
    return inputs, np.empty((number, spec.window, spec.width), dtype=np.float32)
