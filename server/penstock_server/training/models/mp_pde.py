"""The message-passing PDE solver.

Brandstetter, Worrall and Welling 2022, Message Passing Neural PDE Solvers, section 3.2: each point of the grid is a
node. An encoder turns the values at a node into features (eq. 7), messages from its neighbours change them layer by
layer (eqs. 8-9), and a convolution along time decodes them to a bundle of time steps (eq. 10).

On a periodic grid every node has its neighbours at the same offsets. A message is therefore the sum of a part computed
once at the receiver and a part computed once at the sender and rolled; no graph is needed.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional

from penstock_server.study import SampleSpec
from penstock_server.training.models.layout import GridLayout, check_at_least, persistence

_DECODER_CHANNELS = 8
_EPSILON = 1e-5  # of instance normalisation


class MessagePassing(nn.Module):
    """One layer: m_ij = φ(f_i, f_j, u_i - u_j, x_i - x_j, θ), f_i' = norm(f_i + ψ(f_i, mean_j m_ij, θ)), eqs. 8-9.

    As in the authors' code, φ and ψ are two linear layers with a Swish after each, messages are averaged over the
    neighbours, and instance normalisation acts over the points of each sample, feature by feature. θ is the row of
    inputs.

    Args:
        hidden: number of features of a node.
        values: number of values u at a node.
        n_inputs: length of θ.
        offsets: of the neighbours, in points along each axis.
        distances: x_i - x_j of each offset, shape (offsets, dimensions).
    """

    distances: Tensor

    def __init__(
        self, hidden: int, values: int, n_inputs: int, offsets: list[tuple[int, ...]], distances: Tensor
    ) -> None:
        super().__init__()
        self.offsets = offsets
        self.register_buffer("distances", distances, persistent=False)
        # φ's first layer in parts. It depends on u_i - u_j, so receiver and sender share a matrix with opposite signs.
        self.receiver = nn.Linear(hidden, hidden)
        self.sender = nn.Linear(hidden, hidden, bias=False)
        self.difference = nn.Linear(values, hidden, bias=False)
        self.distance = nn.Linear(distances.shape[1], hidden, bias=False)
        self.message_inputs = nn.Linear(n_inputs, hidden, bias=False)
        self.message = nn.Linear(hidden, hidden)
        self.update_node = nn.Linear(hidden, hidden)
        self.update_messages = nn.Linear(hidden, hidden, bias=False)
        self.update_inputs = nn.Linear(n_inputs, hidden, bias=False)
        self.update = nn.Linear(hidden, hidden)

    def forward(self, features: Tensor, values: Tensor, inputs: Tensor) -> Tensor:
        """Return the features after one exchange of messages.

        Args:
            features: f, shape (batch, *grid, hidden).
            values: u, shape (batch, *grid, values).
            inputs: θ, shape (batch, 1, ..., n_inputs), with a 1 for each axis of the grid.

        Returns:
            Shape (batch, *grid, hidden).
        """
        axes = tuple(range(1, features.ndim - 1))
        difference = self.difference(values)
        receiver = self.receiver(features) + difference + self.message_inputs(inputs)
        sender = self.sender(features) - difference
        distance = self.distance(self.distances)
        messages = torch.zeros_like(features)
        for i, offset in enumerate(self.offsets):
            # Rolling back by `offset` brings the neighbour at `offset` here.
            neighbour = torch.roll(sender, [-o for o in offset], axes)
            messages = messages + functional.silu(self.message(functional.silu(receiver + neighbour + distance[i])))
        messages = messages / len(self.offsets)
        change = self.update_node(features) + self.update_messages(messages) + self.update_inputs(inputs)
        features = features + functional.silu(self.update(functional.silu(change)))
        variance, mean = torch.var_mean(features, axes, correction=0, keepdim=True)
        return (features - mean) * torch.rsqrt(variance + _EPSILON)


class Decoder(nn.Module):
    """Turns the features of a node into its change at each step of the bundle (eq. 10).

    Two 1D convolutions along the features with a Swish between them. Stride and kernel of the first grow with
    hidden / steps, and the kernel of the second is as long as leaves `steps` numbers. The sizes are close to those of
    the authors for hidden = 128 and 20, 25 or 50 steps.

    Args:
        hidden: number of features of a node.
        steps: time steps of the bundle.
        components: values of a node at one time step.
    """

    def __init__(self, hidden: int, steps: int, components: int) -> None:
        super().__init__()
        self.steps, self.stride = steps, max(1, hidden // (steps + 8))
        self.between = hidden // self.stride - 3  # numbers that a kernel of 4 strides leaves
        # Conv1d holds and initialises the weights. They are applied as banded matrices: convolutions of so few channels
        # are slow on a CPU.
        self.first = nn.Conv1d(1, _DECODER_CHANNELS, 4 * self.stride, stride=self.stride)
        self.second = nn.Conv1d(_DECODER_CHANNELS, components, self.between - steps + 1)

    def forward(self, features: Tensor) -> Tensor:
        """Decode features, shape (nodes, hidden), to changes, shape (nodes, components, steps)."""
        matrix = banded(self.first.weight, self.between, self.stride)
        values = _apply(features[:, None, : matrix.shape[-1]], matrix, self.first.bias)
        return _apply(functional.silu(values), banded(self.second.weight, self.steps, 1), self.second.bias)


def banded(weight: Tensor, outputs: int, stride: int) -> Tensor:
    """Return the matrix of a 1D convolution: row l holds the kernel from column l stride on, and zeros.

    Args:
        weight: kernels, shape (out, in, kernel).
        outputs: number of rows.
        stride: of the convolution.

    Returns:
        Shape (out, in, outputs, (outputs - 1) stride + kernel).
    """
    length = (outputs - 1) * stride + weight.shape[-1]
    # Kernel and zeros, longer than a row by `stride`, repeated and cut into rows: each row begins `stride` further on.
    repeated = functional.pad(weight, (0, outputs * stride)).repeat(1, 1, outputs)
    return repeated[..., : outputs * length].reshape(*weight.shape[:2], outputs, length)


def _apply(values: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply values (nodes, in, length) by a banded matrix; returns shape (nodes, out, outputs)."""
    assert bias is not None
    out, _, outputs, _ = matrix.shape
    product = functional.linear(values.flatten(1), matrix.transpose(1, 2).flatten(0, 1).flatten(1))
    return product.reshape(-1, out, outputs) + bias[:, None]


def slopes(points: Tensor) -> Tensor:
    """Return the slopes (u^K - u^k) / ((K - k) / K) of a bundle, and its last time step u^K: the inverse of eq. 10.

    These are as many numbers as the K time steps, from which a linear layer can restore them. They are given to the
    network because the time steps of a bundle are nearly equal: a forcing that no input contains is visible only in
    their small differences, which a network that is given the time steps learns last.

    Args:
        points: the time steps, shape (batch, K, *grid, components).

    Returns:
        The slopes and, last, u^K; the same shape.
    """
    steps, last = points.shape[1], points[:, -1:]
    lags = torch.arange(steps - 1, 0, -1, device=points.device) / steps
    return torch.cat([(last - points[:, :-1]) / lags.reshape(-1, *[1] * (points.ndim - 2)), last], dim=1)


class MPPDE(nn.Module):
    """Message passing between neighbours on one periodic grid of 1 or 2 dimensions, for windows.

    The k-th of the K predicted time steps is u + (k / K) d_k (eq. 10), with u the state's last time step and the
    duration of a bundle as the unit of time.

    Args:
        spec: shapes of the samples.
        hidden: number of features of a node.
        layers: number of message-passing layers.
        neighbours: points on each side that send messages to a node; in two dimensions, all within that distance.
        coordinates: whether each node gets its coordinates; without them the model commutes with translations, as it
            should where the equation is the same everywhere.

    Raises:
        ValueError: when window = 1, the fields are not all on one grid of 1 or 2 dimensions, there are more neighbours
            than points or fewer features than the decoder needs, or an option is out of range.
    """

    coordinates: Tensor
    elapsed: Tensor

    def __init__(
        self, spec: SampleSpec, hidden: int = 64, layers: int = 6, neighbours: int = 3, coordinates: bool = True
    ) -> None:
        super().__init__()
        check_at_least(1, hidden=hidden, layers=layers, neighbours=neighbours)
        if spec.window == 1:
            raise ValueError(
                "mp_pde predicts from the time steps before: set [samples] window = 2 or more, or use mlp, fno or unet"
            )
        self.layout = layout = GridLayout.of(spec, "mp_pde")
        if 2 * neighbours + 1 > min(layout.shape):
            raise ValueError(
                f"neighbours = {neighbours} on a grid of {layout.shape}: {2 * neighbours + 1} points in a row would "
                f"not all differ; set neighbours to at most {(min(layout.shape) - 1) // 2}"
            )
        if hidden < layout.steps + 3:
            raise ValueError(
                f"hidden = {hidden} with bundle = {layout.steps}: the decoder makes the bundle by convolving the "
                f"features; set hidden to at least {layout.steps + 3}"
            )
        offsets = [
            offset
            for offset in product(range(-neighbours, neighbours + 1), repeat=len(layout.shape))
            if 0 < sum(o * o for o in offset) <= neighbours**2
        ]
        distances = torch.tensor(offsets, dtype=torch.float32) / neighbours  # in units of the reach: of order one
        self.register_buffer("coordinates", layout.coordinates()[None], persistent=False)
        elapsed = torch.arange(1, layout.steps + 1, dtype=torch.float32) / layout.steps
        self.register_buffer("elapsed", elapsed, persistent=False)

        # The encoder's first layer acts on [state, coordinates, inputs], in parts: each is computed where it varies.
        self.encode_state = nn.Linear(layout.channels, hidden)
        self.encode_inputs = nn.Linear(spec.n_inputs, hidden, bias=False)
        self.encode_coordinates = nn.Linear(len(layout.shape), hidden, bias=False) if coordinates else None
        self.encode = nn.Linear(hidden, hidden)
        self.passing = nn.ModuleList(
            MessagePassing(hidden, layout.channels, spec.n_inputs, offsets, distances) for _ in range(layers)
        )
        self.decode = Decoder(hidden, layout.steps, layout.components)

    def forward(self, inputs: Tensor, state: Tensor) -> Tensor:
        """Predict in normalised units.

        Args:
            inputs: shape (batch, n_inputs), float32.
            state: shape (batch, state_width), float32.

        Returns:
            Shape (batch, state_width).
        """
        layout, axes = self.layout, len(self.layout.shape)
        values = slopes(layout.points(state)).movedim(1, -2).flatten(-2)  # (batch, *grid, steps x components)
        inputs = inputs.reshape(inputs.shape[0], *[1] * axes, inputs.shape[1])
        features = self.encode_state(values) + self.encode_inputs(inputs)
        if self.encode_coordinates is not None:
            features = features + self.encode_coordinates(self.coordinates)
        features = functional.silu(self.encode(functional.silu(features)))
        for passing in self.passing:
            features = passing(features, values, inputs)
        change = self.decode(features.flatten(0, -2)) * self.elapsed  # (batch x points, components, steps)
        change = change.reshape(*features.shape[:-1], layout.components, layout.steps).movedim(-1, 1)
        return persistence(layout.spec, state) + layout.rows(change)
