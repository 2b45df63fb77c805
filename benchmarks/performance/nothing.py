"""A model and a loss that compute nothing, so that a study measures its stream and its batches alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from penstock_server.study import SampleSpec


class Nothing(nn.Module):
    """Predicts one number everywhere.

    Args:
        spec: layout of a sample.
    """

    def __init__(self, spec: SampleSpec) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self._width = spec.width

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the number for each sample and column, without writing it anywhere."""
        return self.weight.expand(len(inputs), self._width)


def nothing(_prediction: Tensor, _target: Tensor) -> Tensor:
    """Return a loss that looks at nothing."""
    return torch.zeros((), requires_grad=True)
