"""The Fourier neural operator against the plain formulas, its symmetries, and operators that it must be able to learn."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from on_grids import learnt_error, shifted, smooth_rows
from penstock_server.study import FieldSpec, ModelSection, SampleSpec
from penstock_server.training.models import FNO, ModelError, make_model
from penstock_server.training.models.fno import FourierModes, SpectralConvolution


def spec(*shape: int, components: int = 1, bundle: int = 1) -> SampleSpec:
    return SampleSpec(("a",), (FieldSpec("u", components, shape),), window=2 * bundle, bundle=bundle)


grids = st.lists(st.integers(1, 9), min_size=1, max_size=2).flatmap(
    lambda grid: st.tuples(st.just(tuple(grid)), st.tuples(*(st.integers(1, (n + 1) // 2) for n in grid)))
)


def wave_numbers(modes: tuple[int, ...]) -> list[tuple[int, ...]]:
    second = range(1 - modes[1], modes[1]) if len(modes) == 2 else None
    return [(k,) if second is None else (k, m) for k in range(modes[0]) for m in (second or [0])]


@given(grids)
@settings(max_examples=40, deadline=None)
def test_the_coefficients_are_those_of_numpys_fft(case: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    grid, modes = case
    values = torch.randn(*grid, 2, 3, generator=torch.Generator().manual_seed(0))
    got = FourierModes(grid, modes)(values).numpy()
    full = np.fft.fftn(values.numpy(), axes=range(len(grid)))
    for at, k in enumerate(wave_numbers(modes)):
        np.testing.assert_allclose(got[at, 0] + 1j * got[at, 1], full[k], atol=1e-4)


@given(grids)
@settings(max_examples=40, deadline=None)
def test_a_spectral_convolution_is_the_direct_sum_over_wave_numbers(
    case: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    """eq. 5 written out: analysis sum, one complex matrix for each wave number, synthesis sum over it and its mirror image."""
    grid, modes = case
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(*grid, 2, 3, generator=generator)
    transform = FourierModes(grid, modes)
    layer = SpectralConvolution(transform, 3)
    torch.nn.init.normal_(layer.weight, generator=generator)
    got = transform.inverse(layer(transform(values))).detach().numpy()
    matrices = layer.weight.detach().numpy()
    points = np.stack(np.meshgrid(*(np.arange(n) / n for n in grid), indexing="ij"))
    want = np.zeros_like(got, dtype=np.float64)
    for at, k in enumerate(wave_numbers(modes)):
        wave = np.exp(2j * np.pi * np.tensordot(k, points, 1))
        coefficient = np.tensordot(wave.conj(), values.numpy(), len(grid))  # (batch, channels)
        mixed = coefficient @ (matrices[at, :, 0] + 1j * matrices[at, :, 1])
        twice = 1 if k[0] == 0 else 2  # those with k[0] = 0 hold their own mirror images
        want += twice * (wave[..., None, None] * mixed).real / np.prod(grid)
    np.testing.assert_allclose(got, want, atol=1e-4)


@given(grids)
@settings(max_examples=40, deadline=None)
def test_the_inverse_is_torchs_and_brings_back_a_field_of_these_wave_numbers(
    case: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    grid, modes = case
    transform = FourierModes(grid, modes)
    kept = transform.inverse(transform(torch.randn(*grid, 2, 3)))
    torch.testing.assert_close(transform.inverse(transform(kept)), kept, rtol=1e-4, atol=1e-5)
    spectrum = torch.fft.fftn(kept, dim=tuple(range(len(grid))))
    for axis, (n, m) in enumerate(zip(grid, modes, strict=True)):
        beyond = [k for k in range(n) if min(k, n - k) >= m]
        assert spectrum.index_select(axis, torch.tensor(beyond, dtype=torch.long)).abs().sum() < 1e-3


@pytest.mark.parametrize("grid", [(12,), (8, 10)])
def test_without_coordinates_it_commutes_with_every_translation(grid: tuple[int, ...]) -> None:
    case = spec(*grid, components=2, bundle=2)
    inputs, state = torch.randn(2, 2), torch.randn(2, case.state_width)
    torch.manual_seed(0)
    model = FNO(case, width=6, modes=4, layers=2, coordinates=False)
    shift = (5, 3)[: len(grid)]
    torch.testing.assert_close(
        model(inputs, shifted(case, state, shift)), shifted(case, model(inputs, state), shift), rtol=1e-4, atol=1e-5
    )
    placed = FNO(case, width=6, modes=4, layers=2)
    assert not torch.allclose(placed(inputs, shifted(case, state, shift)), shifted(case, placed(inputs, state), shift))


@pytest.mark.parametrize("dimensions", [1, 2])
def test_the_same_weights_are_the_same_operator_on_a_finer_grid(dimensions: int) -> None:
    """Sampled functions of few wave numbers: both grids see the same function, up to what the activations alias."""
    coarse, fine = spec(*[24] * dimensions), spec(*[48] * dimensions)
    torch.manual_seed(0)
    models = [FNO(s, width=8, modes=5, layers=3, coordinates=False) for s in (coarse, fine)]
    for layer in models[0].spectral:
        torch.nn.init.normal_(layer.weight, std=0.2)
    models[1].load_state_dict(models[0].state_dict())
    inputs = torch.randn(4, 2)
    state = smooth_rows(4, (48,) * dimensions, torch.Generator().manual_seed(0))

    def on_coarse(rows: torch.Tensor) -> torch.Tensor:
        return rows.reshape(4, *[48] * dimensions)[(slice(None), *[slice(None, None, 2)] * dimensions)].flatten(1)

    from_fine, from_coarse = on_coarse(models[1](inputs, state)), models[0](inputs, on_coarse(state))
    change = (from_coarse - on_coarse(state)).std()
    assert (from_coarse - from_fine).abs().max() < 0.005 * change


def test_checkpoints_hold_nothing_of_the_grid() -> None:
    model = FNO(spec(24, 24), width=4, modes=3)
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}
    assert model.spectral[0].weight.shape == (3 * 5, 4, 2, 4)
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_without_residual_a_model_of_zeros_forgets_the_state() -> None:
    state = torch.randn(2, 8)
    for residual in (True, False):
        model = FNO(spec(8), width=4, modes=2, residual=residual)
        for parameter in model.parameters():
            torch.nn.init.zeros_(parameter)
        assert torch.equal(model(torch.randn(2, 2), state), state if residual else 0 * state)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((16,), {"modes": 9}, r"modes = 9 on a grid of \(16,\): .* set modes to at most 8 there"),
        ((32, 15), {"modes": [8, 9]}, r"15 points carry wave numbers below 7.5 .* at most 8 there"),
        ((32, 32), {"modes": [8]}, r"modes = \[8\]: expected one whole number of at least 1, or 2, one for each axis"),
        ((32,), {"modes": 0}, r"modes = 0: expected one whole number of at least 1"),
        ((32,), {"width": 0}, r"width = 0: expected a whole number of at least 1"),
        ((32,), {"layers": 1.5}, r"layers = 1.5: expected a whole number of at least 1"),
        ((32,), {"activation": "gello"}, r"activation = 'gello': did you mean 'gelu'\?"),
        ((32,), {"mode": 3}, r"fno has no option 'mode'; did you mean 'modes'\?"),
    ],
)
def test_options_out_of_range(shape: tuple[int, ...], options: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        make_model(ModelSection.model_validate({"name": "fno", **options}), spec(*shape), 0)


def test_a_model_of_single_time_steps_needs_its_coordinates() -> None:
    single = SampleSpec(("a",), (FieldSpec("u", 1, (32,)),))
    with pytest.raises(ValueError, match=r"coordinates = false with window = 1"):
        FNO(single, coordinates=False)
    assert FNO(single)(torch.randn(3, 2)).shape == (3, 32)


@pytest.mark.parametrize(
    ("shape", "operator", "below"),
    [((32,), "shift", 0.05), ((32,), "steepen", 0.2), ((16, 16), "shift", 0.06)],
)
def test_it_learns_an_operator_on_random_fields(shape: tuple[int, ...], operator: str, below: float) -> None:
    torch.manual_seed(0)
    model = FNO(spec(*shape), width=12, modes=6, projection=32)
    assert learnt_error(model, shape, operator, steps=250, rate=1e-2) < below


def test_it_learns_fields_from_parameters_alone() -> None:
    single = SampleSpec(("a",), (FieldSpec("u", 1, (16, 16)),))
    torch.manual_seed(0)
    model = FNO(single, width=8, modes=4, layers=2, projection=16)
    x, y = model.coordinates.unbind(-1)
    inputs = torch.rand(4, 2, generator=torch.Generator().manual_seed(0))
    target = torch.sin(2 * torch.pi * (x + inputs[:, :1, None])) * torch.cos(2 * torch.pi * y)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        loss = (model(inputs) - target.flatten(1)).square().mean()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.005 * target.var().item()
