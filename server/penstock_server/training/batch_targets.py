"""The normalised targets of a batch: on a CPU in one pass, into memory that is used again."""

from __future__ import annotations

import torch
from torch import Tensor

from penstock_server.native import normalise
from penstock_server.study import BatchMemory
from penstock_server.training.normalisation import Affine

FEW_THREADS = 4  # of torch; more of them pass twice over memory faster than one passes once


class BatchTargets:
    """Gives the numbers of `Affine.targets`, bit for bit.

    Args:
        normalised: whether targets are normalised; else they are given back as they are.
    """

    def __init__(self, normalised: bool) -> None:
        self._normalised = normalised
        self._memory = BatchMemory()

    def __call__(self, affine: Affine, raw: Tensor) -> Tensor:
        """Normalise target rows.

        Args:
            affine: the map, on the device of the targets.
            raw: shape (..., k width), float32; any number k of rows laid end to end.

        Returns:
            The shape of `raw`; float32. Its memory is used again once nothing refers to it.
        """
        if not self._normalised:
            return raw
        if raw.device.type != "cpu" or not raw.is_contiguous() or torch.get_num_threads() > FEW_THREADS:
            return affine.targets(raw)
        rows = raw.numpy().reshape(-1, len(affine.target_mean))
        out = self._memory.tensor(rows.shape)
        normalise(rows, affine.target_mean.numpy(), affine.target_std.numpy(), out.numpy())
        return out.view(raw.shape)
