"""A fully connected network: by default that of the SC 2023 paper's laptop protocol (6 -> 256 -> 256 -> grid, ReLU)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from penstock_client.nearest import nearest
from penstock_server.study import SampleSpec
from penstock_server.training.models.layout import persistence

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


class MLP(nn.Module):
    """Maps parameters and time to all fields at once.

    With window > 1 it takes the state, too, and predicts the change from its last time step to each of the `bundle`
    time steps that follow.

    Args:
        spec: shapes of the samples.
        hidden: widths of the hidden layers; none for a linear model.
        activation: one of ACTIVATIONS.

    Raises:
        ValueError: when a width is below 1, or the activation is unknown.
    """

    def __init__(self, spec: SampleSpec, hidden: Sequence[int] = (256, 256), activation: str = "relu") -> None:
        super().__init__()
        if isinstance(hidden, int) or any(not isinstance(n, int) or n < 1 for n in hidden):
            raise ValueError(f"hidden = {hidden!r}: expected a list of widths of at least 1, such as [256, 256]")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation = {activation!r}: {nearest(activation, ACTIVATIONS)}")
        self.spec = spec
        out = spec.state_width if spec.window > 1 else spec.width
        widths = [spec.n_inputs + (out if spec.window > 1 else 0), *hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), ACTIVATIONS[activation]()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], out))

    def forward(self, inputs: Tensor, state: Tensor | None = None) -> Tensor:
        """Predict in normalised units.

        Args:
            inputs: shape (batch, n_inputs), float32.
            state: with window > 1, shape (batch, state_width), float32.

        Returns:
            Shape (batch, width) or, with window > 1, (batch, state_width).
        """
        if state is None:
            return self.layers(inputs)  # type: ignore[no-any-return]
        return persistence(self.spec, state) + self.layers(torch.cat([inputs, state], dim=1))  # type: ignore[no-any-return]
