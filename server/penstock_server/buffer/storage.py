"""Where samples lie: two contiguous float32 arrays, allocated once.

Nothing here knows which slots are in use; `population` does.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penstock_server.study import Batch, SampleSpec

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


class Storage:
    """Room for `slots` samples.

    inputs: (slots, window, n_inputs). targets: (slots, window, width). Both float32, on the host, not initialised: the
    operating system hands out the memory as it is first written.

    pin: batches are gathered into page-locked memory, from which a GPU copies without waiting. The storage itself stays
    pageable: no device reads it, and torch rounds page-locked blocks up to a power of two, which here would be gigabytes.
    """

    def __init__(self, spec: SampleSpec, slots: int, *, pin: bool = False) -> None:
        if pin and not torch.cuda.is_available():
            raise ValueError("pin = True, but torch sees no GPU: page-locked memory needs one; use pin = False")
        self.spec = spec
        self.slots = slots
        self._pin = pin
        self.inputs: Floats = np.empty((slots, spec.window, spec.n_inputs), dtype=np.float32)
        self.targets: Floats = np.empty((slots, spec.window, spec.width), dtype=np.float32)

    def gather(self, slots: Indices) -> Batch:
        """Copy the samples in `slots` (n,) into a new batch, in that order; a slot may be named more than once."""
        return Batch(self._gather(self.inputs, slots), self._gather(self.targets, slots))

    def _gather(self, rows: Floats, slots: Indices) -> Tensor:
        out = torch.empty((slots.size, *rows.shape[1:]), dtype=torch.float32, pin_memory=self._pin)
        # Not torch.index_select: that is the same copy on OpenMP threads, and where solvers keep the cores busy these wait for
        # each other for tens of milliseconds, here with the buffer locked. With "clip" numpy writes straight into `out`.
        rows.take(slots, axis=0, out=out.numpy(), mode="clip")
        return out
