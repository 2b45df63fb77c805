"""Where samples lie: two contiguous float32 tensors, allocated once.

Nothing here knows which slots are in use; `population` does.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penstock_server.schema import Batch, SampleSpec

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
        self._inputs = torch.empty((slots, spec.window, spec.n_inputs), dtype=torch.float32)
        self._targets = torch.empty((slots, spec.window, spec.width), dtype=torch.float32)
        # The same memory, for writing without going through torch.
        self.inputs: Floats = self._inputs.numpy()
        self.targets: Floats = self._targets.numpy()

    def gather(self, slots: Indices) -> Batch:
        """Copy the samples in `slots` (n,) into a new batch, in that order; a slot may be named more than once."""
        index = torch.from_numpy(slots)
        return Batch(self._gather(self._inputs, index), self._gather(self._targets, index))

    def _gather(self, rows: Tensor, index: Tensor) -> Tensor:
        out = torch.empty((len(index), *rows.shape[1:]), dtype=torch.float32, pin_memory=self._pin)
        return torch.index_select(rows, 0, index, out=out)
