"""The U-Net: its symmetry, what it refuses, and operators that it must be able to learn."""

import pytest
import torch

from on_grids import learnt_error, shifted
from penstock_server.study import FieldSpec, ModelSection, SampleSpec
from penstock_server.training.models import ModelError, UNet, make_model


def spec(*shape: int, components: int = 1, bundle: int = 1) -> SampleSpec:
    return SampleSpec(("a",), (FieldSpec("u", components, shape),), window=2 * bundle, bundle=bundle)


@pytest.mark.parametrize(("grid", "shift"), [((24,), (12,)), ((8, 16), (4, 8))])
def test_it_commutes_with_translations_by_whole_cells_of_the_coarsest_level(
    grid: tuple[int, ...], shift: tuple[int, ...]
) -> None:
    case = spec(*grid, components=2, bundle=2)
    inputs, state = torch.randn(2, 2), torch.randn(2, case.state_width)
    torch.manual_seed(0)

    def difference(model: UNet, by: tuple[int, ...]) -> float:
        there = model(inputs, shifted(case, state, by))
        return float((there - shifted(case, model(inputs, state), by)).detach().abs().max())

    model = UNet(case, width=4, depth=2)
    assert difference(model, shift) < 1e-5
    assert difference(model, (1,) * len(grid)) > 1e-3  # cells of the coarsest level are cut elsewhere
    assert difference(UNet(case, width=4, depth=2, periodic=False), shift) > 1e-3  # the border shows
    assert difference(UNet(case, width=4, depth=2, coordinates=True), shift) > 1e-3


def test_levels_and_channels_are_those_asked_for() -> None:
    model = UNet(spec(16, 16, components=2, bundle=3), width=4, depth=3)
    assert [(b.first.in_channels, b.first.out_channels) for b in model.down] == [(6, 4), (4, 8), (8, 16)]
    assert (model.bottom.first.in_channels, model.bottom.first.out_channels) == (16, 32)
    assert [(b.first.in_channels, b.first.out_channels) for b in model.up] == [(32, 16), (16, 8), (8, 4)]
    assert {b.first.padding_mode for b in model.down} == {"circular"}
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}


def test_without_residual_a_model_of_zeros_forgets_the_state() -> None:
    state = torch.randn(2, 16)
    for residual in (True, False):
        model = UNet(spec(8, bundle=2), width=4, depth=1, residual=residual)
        for parameter in model.parameters():
            torch.nn.init.zeros_(parameter)
        want = state[:, 8:].repeat(1, 2) if residual else 0 * state
        assert torch.equal(model(torch.randn(2, 2), state), want)


@pytest.mark.parametrize("width", [1, 4, 9, 12])
def test_the_coarsest_level_may_be_one_point(width: int) -> None:
    model = UNet(spec(4, 4), width=width, depth=2)
    for number in (1, 3):
        assert model(torch.randn(number, 2), torch.randn(number, 16)).isfinite().all()


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((20, 32), {}, r"depth = 3 on a grid of \(20, 32\): .* must divide by 8; set depth = 2, or another number"),
        ((15,), {"depth": 1}, r"must divide by 2; set another number of points"),
        ((16,), {"depth": 0}, r"depth = 0: expected a whole number of at least 1"),
        ((16,), {"width": -4}, r"width = -4: expected a whole number of at least 1"),
        ((16,), {"periodc": False}, r"unet has no option 'periodc'; did you mean 'periodic'\?"),
    ],
)
def test_options_out_of_range(shape: tuple[int, ...], options: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        make_model(ModelSection.model_validate({"name": "unet", **options}), spec(*shape), 0)


@pytest.mark.parametrize(("shape", "steps"), [((32,), 250), ((16, 16), 150)])
def test_it_learns_a_translation_of_random_fields(shape: tuple[int, ...], steps: int) -> None:
    torch.manual_seed(0)
    assert learnt_error(UNet(spec(*shape), width=8, depth=2), shape, "shift", steps, rate=3e-3) < 0.2


@pytest.mark.parametrize("periodic", [True, False])
def test_it_learns_fields_from_parameters_alone(periodic: bool) -> None:
    single = SampleSpec(("a",), (FieldSpec("u", 1, (16, 16)),))
    torch.manual_seed(0)
    model = UNet(single, width=8, depth=2, periodic=periodic)
    x, y = model.layout.coordinates().unbind(-1)
    inputs = torch.rand(4, 2, generator=torch.Generator().manual_seed(0))
    target = torch.sin(2 * torch.pi * (x + inputs[:, :1, None])) * torch.cos(2 * torch.pi * y)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(120):
        optimizer.zero_grad()
        loss = (model(inputs) - target.flatten(1)).square().mean()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.02 * target.var().item()
