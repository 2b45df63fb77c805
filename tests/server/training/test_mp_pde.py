"""The message-passing solver against the paper's equations edge by edge, its symmetry, and operators that it must learn."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from on_grids import learnt_error, shifted
from penstock_server.study import FieldSpec, ModelSection, SampleSpec
from penstock_server.training.models import MPPDE, ModelError, make_model
from penstock_server.training.models.mp_pde import Decoder, banded, slopes


def spec(*shape: int, components: int = 1, bundle: int = 1) -> SampleSpec:
    return SampleSpec(("a",), (FieldSpec("u", components, shape),), window=2 * bundle, bundle=bundle)


def test_messages_are_those_of_the_paper_edge_by_edge() -> None:
    """eqs. 8-9 on a ring of 7 points, each edge by itself, with φ's first layer as the one matrix that it stands for."""
    points, hidden, reach = 7, 6, 2
    torch.manual_seed(0)
    layer = MPPDE(spec(points, bundle=2), hidden=hidden, neighbours=reach).passing[0]
    f, u, theta = torch.randn(1, points, hidden), torch.randn(1, points, 2), torch.randn(1, 1, 2)
    parts = [layer.receiver, layer.sender, layer.difference, layer.distance, layer.message_inputs]
    first = torch.cat([part.weight for part in parts], dim=1)
    psi = torch.cat([layer.update_node.weight, layer.update_messages.weight, layer.update_inputs.weight], dim=1)
    rows = []
    for i in range(points):
        messages = []
        for offset in (-2, -1, 1, 2):
            j = (i + offset) % points
            distance = torch.tensor([offset / reach])
            edge = torch.cat([f[0, i], f[0, j], u[0, i] - u[0, j], distance, theta[0, 0]])
            inner = functional.silu(functional.linear(edge, first, layer.receiver.bias))
            messages.append(functional.silu(layer.message(inner)))
        node = torch.cat([f[0, i], torch.stack(messages).mean(0), theta[0, 0]])
        inner = functional.silu(functional.linear(node, psi, layer.update_node.bias))
        rows.append(f[0, i] + functional.silu(layer.update(inner)))
    want = functional.instance_norm(torch.stack(rows)[None].transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(layer(f, u, theta), want, rtol=1e-4, atol=1e-5)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.integers(1, 6))
@settings(max_examples=50, deadline=None)
def test_a_banded_matrix_convolves(before: int, after: int, kernel: int, stride: int, outputs: int) -> None:
    weight = torch.randn(after, before, kernel)
    values = torch.randn(4, before, (outputs - 1) * stride + kernel)
    got = torch.einsum("oilp,nip->nol", banded(weight, outputs, stride), values)
    torch.testing.assert_close(got, functional.conv1d(values, weight, stride=stride), rtol=1e-4, atol=1e-5)


@given(st.integers(4, 140), st.integers(1, 60), st.integers(1, 2))
@settings(max_examples=50, deadline=None)
def test_the_decoder_is_its_two_convolutions(hidden: int, steps: int, components: int) -> None:
    hidden = max(hidden, steps + 3)
    decoder = Decoder(hidden, steps, components)
    features = torch.randn(3, hidden)
    want = decoder.second(functional.silu(decoder.first(features[:, None])))
    got = decoder(features)
    assert got.shape == (3, components, steps)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@given(st.integers(1, 6), st.floats(-3, 3), st.floats(-3, 3))
@settings(max_examples=50, deadline=None)
def test_a_bundle_on_a_straight_line_has_its_slope_everywhere(steps: int, now: float, slope: float) -> None:
    """With the duration of a bundle as unit of time, as the decoder has it; the last step is left as it is."""
    times = torch.arange(1 - steps, 1) / steps
    line = (now + slope * times)[None, :, None, None].expand(2, steps, 5, 1)
    got = slopes(line)
    assert got.shape == line.shape
    torch.testing.assert_close(got[:, :-1], torch.full((2, steps - 1, 5, 1), slope), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got[:, -1:], line[:, -1:])


@pytest.mark.parametrize("grid", [(11,), (7, 9)])
def test_without_coordinates_it_commutes_with_every_translation(grid: tuple[int, ...]) -> None:
    case = spec(*grid, components=2, bundle=2)
    inputs, state = torch.randn(2, 2), torch.randn(2, case.state_width)
    shift = (5, 3)[: len(grid)]
    torch.manual_seed(0)
    for coordinates, equal in ((False, True), (True, False)):
        model = MPPDE(case, hidden=12, layers=2, neighbours=2, coordinates=coordinates)
        there = model(inputs, shifted(case, state, shift))
        assert torch.allclose(there, shifted(case, model(inputs, state), shift), rtol=1e-4, atol=1e-5) is equal


def test_the_change_grows_with_the_time_since_the_last_known_step() -> None:
    """eq. 10: with equal d for all steps of a bundle of four, a quarter of it, a half, and so on."""
    case = spec(8, bundle=4)
    model = MPPDE(case, hidden=16, layers=1)
    for parameter in model.decode.parameters():
        torch.nn.init.zeros_(parameter)
    torch.nn.init.constant_(model.decode.second.bias, 2.0)
    state = torch.randn(3, case.state_width)
    steps = model(torch.randn(3, 2), state).reshape(3, 4, 8)
    for k in range(4):
        torch.testing.assert_close(steps[:, k], state[:, -8:] + 0.5 * (k + 1))


@pytest.mark.parametrize(
    ("case", "options", "message"),
    [
        (
            SampleSpec(("a",), (FieldSpec("u", 1, (16,)),)),
            {},
            r"mp_pde predicts from the time steps before: set \[samp",
        ),
        (spec(6), {}, r"neighbours = 3 on a grid of \(6,\): .* set neighbours to at most 2"),
        (spec(16, bundle=25), {"hidden": 24}, r"hidden = 24 with bundle = 25: .* set hidden to at least 28"),
        (spec(16), {"neighbours": 0}, r"neighbours = 0: expected a whole number of at least 1"),
        (spec(16), {"layers": "6"}, r"layers = '6': expected a whole number of at least 1"),
        (spec(16), {"neighbors": 3}, r"mp_pde has no option 'neighbors'; did you mean 'neighbours'\?"),
    ],
)
def test_options_out_of_range(case: SampleSpec, options: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        make_model(ModelSection.model_validate({"name": "mp_pde", **options}), case, 0)


@pytest.mark.parametrize(
    ("shape", "operator", "neighbours", "steps", "below"),
    [((32,), "shift", 3, 200, 0.15), ((32,), "steepen", 2, 200, 0.3), ((16, 16), "shift", 2, 80, 0.3)],
)
def test_it_learns_an_operator_on_random_fields(
    shape: tuple[int, ...], operator: str, neighbours: int, steps: int, below: float
) -> None:
    torch.manual_seed(0)
    model = MPPDE(spec(*shape), hidden=32, layers=2, neighbours=neighbours)
    assert learnt_error(model, shape, operator, steps, rate=1e-2) < below
