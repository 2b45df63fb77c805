"""The message-passing PDE solver: Brandstetter, Worrall, Welling 2022, Message Passing Neural PDE Solvers, section 3.2.

Each point of the grid is a node. An encoder turns what is known at a node into features (eq. 7), messages from its neighbours
change them layer by layer (eqs. 8-9), and a convolution along time decodes them to a bundle of time steps (eq. 10).

On a periodic grid every node has its neighbours at the same offsets, so a message is the sum of a part worked out once at the
receiver and a part worked out once at the sender and rolled; no graph is needed.
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

    φ and ψ are two linear layers, each with a Swish after it, as in the authors' code; the mean over neighbours and the
    instance normalisation (over the points of each sample, feature by feature) are theirs too. θ is the row of inputs.
    """

    distances: Tensor

    def __init__(
        self, hidden: int, values: int, n_inputs: int, offsets: list[tuple[int, ...]], distances: Tensor
    ) -> None:
        super().__init__()
        self.offsets = offsets
        self.register_buffer("distances", distances, persistent=False)
        # φ's first layer in parts. It sees u_i - u_j, so that one matrix serves receiver and sender with opposite signs.
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
        """features (batch, *grid, hidden), values u (batch, *grid, values), inputs (batch, *1, n_inputs) to features."""
        axes = tuple(range(1, features.ndim - 1))
        difference = self.difference(values)
        receiver = self.receiver(features) + difference + self.message_inputs(inputs)
        sender = self.sender(features) - difference
        distance = self.distance(self.distances)
        messages = torch.zeros_like(features)
        for i, offset in enumerate(self.offsets):
            # The neighbour at `offset` lies there after rolling back by as much.
            neighbour = torch.roll(sender, [-o for o in offset], axes)
            messages = messages + functional.silu(self.message(functional.silu(receiver + neighbour + distance[i])))
        messages = messages / len(self.offsets)
        change = self.update_node(features) + self.update_messages(messages) + self.update_inputs(inputs)
        features = features + functional.silu(self.update(functional.silu(change)))
        variance, mean = torch.var_mean(features, axes, correction=0, keepdim=True)
        return (features - mean) * torch.rsqrt(variance + _EPSILON)


class Decoder(nn.Module):
    """Features of a node to its change at each step of the bundle: two 1D convolutions along the features, with a Swish between.

    The first one's stride and kernel grow with hidden / steps, and the second one's kernel is what leaves `steps` numbers: close to
    the authors' sizes for hidden = 128 and 20, 25 or 50 steps. (nodes, hidden) to (nodes, components, steps).
    """

    def __init__(self, hidden: int, steps: int, components: int) -> None:
        super().__init__()
        self.steps, self.stride = steps, max(1, hidden // (steps + 8))
        self.between = hidden // self.stride - 3  # numbers that a kernel of 4 strides leaves
        # Conv1d as it holds and draws weights; applied as banded matrices, as convolutions of so few channels are slow on a CPU.
        self.first = nn.Conv1d(1, _DECODER_CHANNELS, 4 * self.stride, stride=self.stride)
        self.second = nn.Conv1d(_DECODER_CHANNELS, components, self.between - steps + 1)

    def forward(self, features: Tensor) -> Tensor:
        matrix = banded(self.first.weight, self.between, self.stride)
        values = _apply(features[:, None, : matrix.shape[-1]], matrix, self.first.bias)
        return _apply(functional.silu(values), banded(self.second.weight, self.steps, 1), self.second.bias)


def banded(weight: Tensor, outputs: int, stride: int) -> Tensor:
    """The matrix of a 1D convolution: kernels (out, in, kernel) to (out, in, outputs, (outputs - 1) stride + kernel).

    Row l holds the kernel from column l stride on, and zeros.
    """
    length = (outputs - 1) * stride + weight.shape[-1]
    # Kernel and zeros, longer by `stride` than a row: cut anew into rows, each begins `stride` further on.
    repeated = functional.pad(weight, (0, outputs * stride)).repeat(1, 1, outputs)
    return repeated[..., : outputs * length].reshape(*weight.shape[:2], outputs, length)


def _apply(values: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    """values (nodes, in, length) times a banded matrix, (nodes, out, outputs)."""
    assert bias is not None
    out, _, outputs, _ = matrix.shape
    product = functional.linear(values.flatten(1), matrix.transpose(1, 2).flatten(0, 1).flatten(1))
    return product.reshape(-1, out, outputs) + bias[:, None]


def slopes(points: Tensor) -> Tensor:
    """A bundle's last time step u^K and the slopes that lead to it, (u^K - u^k) / ((K - k) / K): eq. 10 read backwards.

    As many numbers as the K steps themselves, in their order, from which a linear layer can make them again. But the steps of a bundle
    are nearly equal, and what acts on u, such as a forcing that no input tells of, shows in their small differences alone, which
    a network that is given the steps learns to see last. (batch, K, *grid, components) to the same.
    """
    steps, last = points.shape[1], points[:, -1:]
    lags = torch.arange(steps - 1, 0, -1, device=points.device) / steps
    return torch.cat([(last - points[:, :-1]) / lags.reshape(-1, *[1] * (points.ndim - 2)), last], dim=1)


class MPPDE(nn.Module):
    """Message passing between neighbours on one periodic grid of 1 or 2 dimensions, for windows with or without bundles.

    hidden: features of a node. layers: message-passing layers. neighbours: points that a node hears from on each side; on a grid of two
    dimensions, all within that distance in points. coordinates: tell each node where it is. Where the equation is the same everywhere,
    leave them out: the model commutes with every translation then, and need not learn that it should.

    inputs (batch, n_inputs) and state (batch, state_width) -> (batch, state_width), float32, normalised units. The k-th of the K
    predicted steps is u + (k / K) d_k (eq. 10), with u the state's last time step and the duration of a bundle as unit of time.
    Raises ValueError for window = 1, fields on different or other grids, more neighbours than there are points, fewer
    features than the decoder needs, and options out of range.
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
                f"neighbours = {neighbours} on a grid of {layout.shape}: {2 * neighbours + 1} points in a row would not all differ; "
                f"set neighbours to at most {(min(layout.shape) - 1) // 2}"
            )
        if hidden < layout.steps + 3:
            raise ValueError(
                f"hidden = {hidden} with bundle = {layout.steps}: the decoder makes the bundle by convolving the features; "
                f"set hidden to at least {layout.steps + 3}"
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

        # The encoder's first layer is one on [state, coordinates, inputs], in parts: each is worked out where it varies.
        self.encode_state = nn.Linear(layout.channels, hidden)
        self.encode_inputs = nn.Linear(spec.n_inputs, hidden, bias=False)
        self.encode_coordinates = nn.Linear(len(layout.shape), hidden, bias=False) if coordinates else None
        self.encode = nn.Linear(hidden, hidden)
        self.passing = nn.ModuleList(
            MessagePassing(hidden, layout.channels, spec.n_inputs, offsets, distances) for _ in range(layers)
        )
        self.decode = Decoder(hidden, layout.steps, layout.components)

    def forward(self, inputs: Tensor, state: Tensor) -> Tensor:
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
