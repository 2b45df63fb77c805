"""A model for windows: the next time steps from as many before."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from penstock_server.study import SampleSpec


class Stepper(nn.Module):
    def __init__(self, spec: SampleSpec) -> None:
        super().__init__()
        self.change = nn.Linear(spec.n_inputs + spec.state_width, spec.state_width)

    def forward(self, inputs: Tensor, state: Tensor) -> Tensor:
        return state + self.change(torch.cat([inputs, state], dim=1))
