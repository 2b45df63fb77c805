"""A user's own model, outside the package. Any torch module made as Model(spec, **options) works."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from penstock_server.study import SampleSpec


class FourierMLP(nn.Module):
    """A small network on sines and cosines of its (normalised) inputs.

    Args:
        spec: what a sample contains.
        modes: number of frequencies.
        hidden: width of the hidden layers.
    """

    def __init__(self, spec: SampleSpec, modes: int = 6, hidden: int = 128) -> None:
        super().__init__()
        self.modes = modes
        self.layers = nn.Sequential(
            nn.Linear(spec.n_inputs * (1 + 2 * modes), hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, spec.width),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs (batch, n_inputs) to fields (batch, width), both normalised."""
        waves = torch.cat([k * inputs for k in range(1, self.modes + 1)], dim=1)
        return self.layers(torch.cat([inputs, waves.sin(), waves.cos()], dim=1))
