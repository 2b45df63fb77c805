"""The Fourier neural operator.

Li et al. 2021, Fourier Neural Operator for Parametric Partial Differential Equations, eqs. 4-5: a field is lifted to
`width` channels, goes through layers v -> activation(W v + F⁻¹(R · F v)), and is projected back. R acts on the lowest
wave numbers only, with one complex matrix each, so the same weights serve a grid of any resolution.

Because few wave numbers are kept, the transforms are products with the kept rows of the Fourier matrix. One real matrix
product takes fewer operations than a whole FFT, and optimizers, checkpoints and torch.export see no complex numbers.
Activations have the shape (*grid, batch, channels), so that each operation on them is one large matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from penstock_client.nearest import nearest
from penstock_server.study import SampleSpec
from penstock_server.training.models.layout import GridLayout, check_at_least, persistence
from penstock_server.training.models.mlp import ACTIVATIONS


class FourierModes(nn.Module):
    """The Fourier transform of real values at the wave numbers |k| < modes on each axis, and its inverse.

    Values have the shape (*grid, batch, channels). Coefficients have the shape (modes[0], 2, batch, channels) on a line
    and (modes[0], 2 modes[1] - 1, 2, batch, channels), first two axes flattened, on a grid of two dimensions; the axis
    of 2 holds real and imaginary part. On the first axis k = 0, ..., modes[0] - 1; the rest follows because the values
    are real. On the second axis k = 1 - modes[1], ..., modes[1] - 1. Scaled as torch.fft.rfft and irfft: 1/points in
    the inverse.

    Args:
        grid: number of points along each of 1 or 2 axes.
        modes: number of wave numbers k >= 0 along each axis.
    """

    forward_first: Tensor
    inverse_first: Tensor
    forward_second: Tensor
    inverse_second: Tensor

    def __init__(self, grid: Sequence[int], modes: Sequence[int]) -> None:
        super().__init__()
        self.dimensions = len(grid)
        self.count = modes[0] if self.dimensions == 1 else modes[0] * (2 * modes[1] - 1)
        # Not persistent: they belong to the grid, and a state_dict may be loaded on another grid.
        first = _angles(torch.arange(modes[0]), grid[0])
        twice = torch.where(torch.arange(modes[0]) == 0, 1.0, 2.0)[:, None]
        forward = torch.stack([first.cos(), -first.sin()], dim=1)  # (modes, 2, points)
        self.register_buffer("forward_first", forward.flatten(0, 1).float(), persistent=False)
        inverse = forward * twice[:, None] / grid[0]
        self.register_buffer("inverse_first", inverse.flatten(0, 1).T.float().contiguous(), persistent=False)
        if self.dimensions == 2:
            second = _angles(torch.arange(1 - modes[1], modes[1]), grid[1])
            c, s = second.cos(), second.sin()
            # e^{-iθ} (a + ib) = (c a + s b) + i (c b - s a), for rows (k, re | im) and columns (re | im, point)
            turn = torch.stack([torch.cat([c, s], dim=1), torch.cat([-s, c], dim=1)], dim=1).flatten(0, 1)
            self.register_buffer("forward_second", turn.float(), persistent=False)
            self.register_buffer("inverse_second", (turn.T / grid[1]).float().contiguous(), persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        """Transform values.

        Args:
            values: shape (*grid, batch, channels).

        Returns:
            Coefficients, shape (all modes, 2, batch, channels).
        """
        batch, channels = values.shape[-2:]
        out = self.forward_first @ values.flatten(1)
        if self.dimensions == 2:
            # for each wave number of the first axis, shape (2 points, batch channels)
            out = self.forward_second @ out.reshape(-1, self.forward_second.shape[1], batch * channels)
        return out.reshape(self.count, 2, batch, channels)

    def inverse(self, coefficients: Tensor) -> Tensor:
        """Transform coefficients back.

        Args:
            coefficients: shape (all modes, 2, batch, channels).

        Returns:
            Values, shape (*grid, batch, channels).
        """
        batch, channels = coefficients.shape[-2:]
        if self.dimensions == 1:
            return (self.inverse_first @ coefficients.reshape(-1, batch * channels)).reshape(-1, batch, channels)
        rows, columns = self.inverse_second.shape
        out = self.inverse_second @ coefficients.reshape(-1, columns, batch * channels)
        out = self.inverse_first @ out.reshape(-1, rows // 2 * batch * channels)
        return out.reshape(-1, rows // 2, batch, channels)


def _angles(wave_numbers: Tensor, points: int) -> Tensor:
    """Return 2π k j / points for each wave number k and point j, float64; k j is reduced first, so that it is exact."""
    return 2 * math.pi * ((wave_numbers[:, None] * torch.arange(points)) % points).double() / points


class SpectralConvolution(nn.Module):
    """The product (R · F v)(k) = R(k) F v(k) of eq. 5, with one complex matrix R(k) for each wave number.

    Args:
        modes: the wave numbers.
        channels: number of channels before and after.

    Attributes:
        weight: real and imaginary part of R, shape (all modes, channels, 2, channels).
    """

    def __init__(self, modes: FourierModes, channels: int) -> None:
        super().__init__()
        # Small, as in the authors' code, so that the pointwise path dominates at first: larger ones double the error.
        self.weight = nn.Parameter(torch.empty(modes.count, channels, 2, channels).uniform_(-1, 1) / channels**2)

    def forward(self, coefficients: Tensor) -> Tensor:
        """Multiply coefficients, shape (all modes, 2, batch, channels), by R; the shape stays."""
        count, _, batch, channels = coefficients.shape
        both = torch.bmm(coefficients.flatten(1, 2), self.weight.flatten(2)).reshape(count, 2, batch, 2, channels)
        (rr, ri), (ir, ii) = (part.unbind(2) for part in both.unbind(1))
        return torch.stack([rr - ii, ri + ir], dim=1)


class FNO(nn.Module):
    """Fourier layers on one periodic grid of 1 or 2 dimensions, arranged as in Li et al., section 5.3 (Navier-Stokes).

    Inputs (parameters and time) are lifted as constant channels. The weights do not depend on the grid: a state_dict
    may be loaded on a finer one.

    Args:
        spec: shapes of the samples.
        width: number of channels.
        modes: wave numbers kept, 0 to modes - 1 (of both signs): one number for all axes, or one for each.
        layers: number of Fourier layers.
        projection: width of the last hidden layer.
        activation: one of ACTIVATIONS; none follows the last Fourier layer.
        residual: whether to predict the change from the state's last time step.
        coordinates: whether to lift the coordinates of the points; without them the model commutes with translations.

    Raises:
        ValueError: when the fields are not all on one grid of 1 or 2 dimensions, the grid does not resolve the modes,
            or an option is out of range.
    """

    coordinates: Tensor

    def __init__(
        self,
        spec: SampleSpec,
        width: int = 20,
        modes: int | Sequence[int] = 12,
        layers: int = 4,
        projection: int = 128,
        activation: str = "gelu",
        residual: bool = True,
        coordinates: bool = True,
    ) -> None:
        super().__init__()
        check_at_least(1, width=width, layers=layers, projection=projection)
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation = {activation!r}: {nearest(activation, ACTIVATIONS)}")
        self.layout = GridLayout.of(spec, "fno")
        if spec.window == 1 and not coordinates:
            raise ValueError(
                "coordinates = false with window = 1: nothing would tell one point from another; leave it on"
            )
        self.residual = residual and spec.window > 1
        self.modes = FourierModes(self.layout.shape, _modes(modes, self.layout.shape))
        self.register_buffer("coordinates", self.layout.coordinates(), persistent=False)

        # Lifting is one linear layer on [state, coordinates, inputs], in parts: each is computed where it varies.
        self.lift_inputs = nn.Linear(spec.n_inputs, width)
        self.lift_coordinates = nn.Linear(len(self.layout.shape), width, bias=False) if coordinates else None
        self.lift_state = nn.Linear(self.layout.channels, width, bias=False) if spec.window > 1 else None
        self.spectral = nn.ModuleList(SpectralConvolution(self.modes, width) for _ in range(layers))
        self.pointwise = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.activation = ACTIVATIONS[activation]()
        self.project = nn.Sequential(
            nn.Linear(width, projection), ACTIVATIONS[activation](), nn.Linear(projection, self.layout.channels)
        )

    def forward(self, inputs: Tensor, state: Tensor | None = None) -> Tensor:
        """Predict in normalised units.

        Args:
            inputs: shape (batch, n_inputs), float32.
            state: with window > 1, shape (batch, state_width), float32.

        Returns:
            Shape (batch, width) or, with window > 1, (batch, state_width).
        """
        values = self._lift(inputs, state)
        last = len(self.spectral) - 1
        for i, (spectral, pointwise) in enumerate(zip(self.spectral, self.pointwise, strict=True)):
            values = pointwise(values) + self.modes.inverse(spectral(self.modes(values)))
            if i < last:
                values = self.activation(values)
        out = self._rows(self.project(values))
        return persistence(self.layout.spec, state) + out if state is not None and self.residual else out

    def _lift(self, inputs: Tensor, state: Tensor | None) -> Tensor:
        """Return the channels at the points, shape (*grid, batch, width)."""
        values = self.lift_inputs(inputs)
        if self.lift_coordinates is not None:
            values = values + self.lift_coordinates(self.coordinates)[..., None, :]
        if self.lift_state is not None:
            assert state is not None, "a model of windows is called with the state"
            points = self.layout.points(state).movedim((0, 1), (-3, -2)).flatten(-2)
            values = values + self.lift_state(points)
        return values  # type: ignore[no-any-return]

    def _rows(self, values: Tensor) -> Tensor:
        """Turn values (*grid, batch, steps components) into rows (batch, steps width)."""
        points = values.reshape(*values.shape[:-1], self.layout.steps, self.layout.components)
        return self.layout.rows(points.movedim((-3, -2), (0, 1)))


def _modes(modes: int | Sequence[int], grid: tuple[int, ...]) -> list[int]:
    """Return the number of wave numbers to keep on each axis. Raises ValueError."""
    each = [modes] * len(grid) if isinstance(modes, int) else list(modes)
    if len(each) != len(grid) or any(not isinstance(m, int) or m < 1 for m in each):
        raise ValueError(
            f"modes = {modes!r}: expected one whole number of at least 1, or {len(grid)}, one for each axis"
        )
    for kept, points in zip(each, grid, strict=True):
        if 2 * kept - 1 > points:
            raise ValueError(
                f"modes = {modes!r} on a grid of {grid}: {points} points carry wave numbers below {points / 2:g} "
                f"(Nyquist); set modes to at most {(points + 1) // 2} there"
            )
    return each
