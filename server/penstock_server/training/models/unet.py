"""The U-Net, as surrogates of PDE solvers use it.

Ronneberger et al. 2015, U-Net: Convolutional Networks for Biomedical Image Segmentation; Gupta and Brandstetter 2022,
Towards Multi-spatiotemporal-scale Generalized PDE Modeling. The network goes down a few levels, each with half the
points and twice the channels, and up again, with skip connections between the two paths. It has periodic padding,
GroupNorm and GELU; parameters and time scale and shift the channels of every block (FiLM).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from penstock_server.study import SampleSpec
from penstock_server.training.models.layout import GridLayout, check_at_least, persistence

_EMBEDDING = 4  # width of the embedding of parameters and time, as a multiple of `width`
_CONVOLUTION = {1: nn.Conv1d, 2: nn.Conv2d}
_TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d}
_POOL = {1: functional.max_pool1d, 2: functional.max_pool2d}


class Block(nn.Module):
    """Two convolutions over 3 points along each axis, each with GroupNorm and GELU.

    After the first norm the embedding scales and shifts the channels: Gupta and Brandstetter, section 3 (AdaGN).

    Args:
        dimensions: of the grid, 1 or 2.
        before: number of channels of the input.
        after: number of channels of the output.
        embedding: width of the embedding.
        periodic: whether to pad periodically; else with zeros.
    """

    def __init__(self, dimensions: int, before: int, after: int, embedding: int, periodic: bool) -> None:
        super().__init__()
        convolution = _CONVOLUTION[dimensions]
        padding: Literal["circular", "zeros"] = "circular" if periodic else "zeros"
        self.first = convolution(before, after, 3, padding=1, padding_mode=padding)
        self.second = convolution(after, after, 3, padding=1, padding_mode=padding)
        groups = math.gcd(after, 8) if after > 8 else 1
        self.norm_first, self.norm_second = nn.GroupNorm(groups, after), nn.GroupNorm(groups, after)
        self.film = nn.Linear(embedding, 2 * after)
        self.dimensions = dimensions

    def forward(self, values: Tensor, embedding: Tensor) -> Tensor:
        """Apply the block.

        Args:
            values: shape (batch, before, *grid).
            embedding: shape (batch, embedding).

        Returns:
            Shape (batch, after, *grid).
        """
        film = self.film(embedding)
        scale, shift = film.reshape(*film.shape, *[1] * self.dimensions).chunk(2, dim=1)
        values = self.norm_first(self.first(values)) * (1 + scale) + shift
        return functional.gelu(self.norm_second(self.second(functional.gelu(values))))


class UNet(nn.Module):
    """Convolutions on `depth` + 1 levels of one grid of 1 or 2 dimensions.

    With periodic padding and without coordinates the model commutes with translations by multiples of 2**depth points.

    Args:
        spec: shapes of the samples.
        width: number of channels of the finest level; each level below has twice as many.
        depth: how often the grid is halved; the points along each axis must be divisible by 2**depth.
        periodic: whether to pad periodically; else with zeros.
        residual: whether to predict the change from the state's last time step.
        coordinates: whether the coordinates of the points are channels; always so with window = 1, where there is no
            state.

    Raises:
        ValueError: when the fields are not all on one grid of 1 or 2 dimensions, the grid cannot be halved so often, or
            an option is out of range.
    """

    coordinates: Tensor

    def __init__(
        self,
        spec: SampleSpec,
        width: int = 16,
        depth: int = 3,
        periodic: bool = True,
        residual: bool = True,
        coordinates: bool = False,
    ) -> None:
        super().__init__()
        check_at_least(1, width=width, depth=depth)
        self.layout = GridLayout.of(spec, "unet")
        dimensions = len(self.layout.shape)
        if any(n % 2**depth or n == 0 for n in self.layout.shape):
            raise ValueError(
                f"depth = {depth} on a grid of {self.layout.shape}: each axis is halved {depth} times and must divide "
                f"by {2**depth}; {_deepest(self.layout.shape)}"
            )
        self.residual = residual and spec.window > 1
        self.has_coordinates = coordinates or spec.window == 1
        axes = self.layout.coordinates().movedim(-1, 0)
        # On a torus 0 and 1 are the same place, and so have the same sine and cosine.
        places = torch.cat([(2 * math.pi * axes).sin(), (2 * math.pi * axes).cos()]) if periodic else axes
        self.register_buffer("coordinates", places[None], persistent=False)

        embedding = _EMBEDDING * width
        self.embed = nn.Sequential(
            nn.Linear(spec.n_inputs, embedding), nn.GELU(), nn.Linear(embedding, embedding), nn.GELU()
        )
        widths = [width * 2**level for level in range(depth + 1)]
        before = (self.layout.channels if spec.window > 1 else 0) + (len(places) if self.has_coordinates else 0)

        def block(channels: int, after: int) -> Block:
            return Block(dimensions, channels, after, embedding, periodic)

        self.down = nn.ModuleList(block(a, b) for a, b in zip([before, *widths[:-2]], widths[:-1], strict=True))
        self.bottom = block(widths[-2], widths[-1])
        self.rise = nn.ModuleList(_TRANSPOSED[dimensions](2 * n, n, 2, stride=2) for n in reversed(widths[:-1]))
        self.up = nn.ModuleList(block(2 * n, n) for n in reversed(widths[:-1]))
        self.project = _CONVOLUTION[dimensions](width, self.layout.channels, 1)

    def forward(self, inputs: Tensor, state: Tensor | None = None) -> Tensor:
        """Predict in normalised units.

        Args:
            inputs: shape (batch, n_inputs), float32.
            state: with window > 1, shape (batch, state_width), float32.

        Returns:
            Shape (batch, width) or, with window > 1, (batch, state_width).
        """
        embedding = self.embed(inputs)
        values = self._channels(inputs, state)
        pool = _POOL[len(self.layout.shape)]
        across = []
        for down in self.down:
            values = down(values, embedding)
            across.append(values)
            values = pool(values, 2)
        values = self.bottom(values, embedding)
        for rise, up in zip(self.rise, self.up, strict=True):
            values = up(torch.cat([across.pop(), rise(values)], dim=1), embedding)
        values = self.project(values)
        points = values.reshape(-1, self.layout.steps, self.layout.components, *self.layout.shape)
        out = self.layout.rows(points.movedim(2, -1))
        return persistence(self.layout.spec, state) + out if state is not None and self.residual else out

    def _channels(self, inputs: Tensor, state: Tensor | None) -> Tensor:
        """Return the channels of the finest level, shape (batch, channels, *grid)."""
        parts = []
        if state is not None:
            parts.append(self.layout.points(state).movedim(-1, 2).flatten(1, 2))
        if self.has_coordinates:
            parts.append(self.coordinates.expand(inputs.shape[0], *self.coordinates.shape[1:]))
        return torch.cat(parts, dim=1)


def _deepest(grid: tuple[int, ...]) -> str:
    """Return the remedy for a grid that cannot be halved so often."""
    halvings = min((n & -n).bit_length() - 1 for n in grid)
    return f"set depth = {halvings}, or another number of points" if halvings else "set another number of points"
