import copy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_server.study import Batch, FieldSpec, ModelSection, SampleSpec, TrainingSection
from penstock_server.surrogate import Surrogate
from penstock_server.surrogate.export import ModelCard, export_model
from penstock_server.training import Normaliser, Trainer
from penstock_server.training.models import FNO, MLP, MODELS, MPPDE, ModelError, UNet, check_options, make_model

SPEC = SampleSpec(("a", "b"), (FieldSpec("U", 2, (3,)),))
WINDOWS = SampleSpec(("a", "b"), (FieldSpec("U", 2, (3,)),), window=3)
BUNDLES = SampleSpec(("a", "b"), (FieldSpec("U", 2, (3,)),), window=4, bundle=2)

SMALL: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": [16]},
    "fno": {"width": 4, "modes": 3, "layers": 2, "projection": 8},
    "unet": {"width": 4, "depth": 2},
    "mp_pde": {"hidden": 12, "layers": 2, "neighbours": 1},
}
ON_GRIDS = [name for name in SMALL if name != "mlp"]

USER_MODULE = """
import torch
from torch import nn

class Good(nn.Module):
    def __init__(self, spec, *, depth=1):
        super().__init__()
        self.layers = nn.Sequential(*[nn.Linear(spec.n_inputs, spec.n_inputs) for _ in range(depth)], nn.Linear(spec.n_inputs, spec.width))

    def forward(self, inputs):
        return self.layers(inputs)

class WrongShape(Good):
    def forward(self, inputs):
        return self.layers(inputs).reshape(-1, 3, 2)

class OneStep(Good):
    def forward(self, inputs, state):
        return self.layers(inputs)

class Raises(Good):
    def forward(self, inputs):
        raise RuntimeError("boom")

class Picky(Good):
    def __init__(self, spec, depth):
        if depth > 3:
            raise ValueError("depth too deep")
        super().__init__(spec, depth=depth)

class NothingToLearn(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.width = spec.width

    def forward(self, inputs):
        return inputs[:, :1].expand(-1, self.width)

def function():
    pass
"""


@pytest.fixture
def user_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_models.py").write_text(USER_MODULE)
    (tmp_path / "broken_models.py").write_text("1 / 0\n")
    (tmp_path / "needy_models.py").write_text("import a_package_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("my_models", "broken_models", "needy_models"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def section(**values: object) -> ModelSection:
    return ModelSection.model_validate(values)


@pytest.mark.parametrize("spec", [SPEC, WINDOWS])
def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator(spec: SampleSpec) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two, other = (make_model(section(hidden=[8]), spec, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(next(one.parameters()), next(other.parameters()))
    assert one.training


def test_mlp_has_the_layers_asked_for() -> None:
    model = MLP(SPEC, hidden=[8, 5], activation="tanh")
    assert [tuple(p.shape) for p in model.parameters() if p.ndim == 2] == [(8, 3), (5, 8), (6, 5)]
    assert any(isinstance(m, torch.nn.Tanh) for m in model.modules())


def test_windowed_mlp_predicts_the_change_of_the_state() -> None:
    model = MLP(WINDOWS, hidden=[4])
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    state = torch.randn(2, 6)
    assert torch.equal(model(torch.randn(2, 3), state), state)


def test_mlp_starts_a_bundle_from_the_last_time_step_of_the_state() -> None:
    model = MLP(BUNDLES, hidden=[4])
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    state = torch.randn(5, 12)
    out = model(torch.randn(5, 3), state)
    assert torch.equal(out[:, :6], state[:, 6:])
    assert torch.equal(out[:, 6:], state[:, 6:])


def test_the_registered_models() -> None:
    assert list(MODELS.items()) == [("mlp", MLP), ("fno", FNO), ("unet", UNet), ("mp_pde", MPPDE)]


@st.composite
def grid_specs(draw: st.DrawFn, windows: tuple[int, ...] = (1, 2, 3)) -> SampleSpec:
    """Fields of equal shape on a grid of 1 or 2 dimensions."""
    shape = draw(st.lists(st.sampled_from([8, 12]), min_size=1, max_size=2).map(tuple))
    components = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    fields = tuple(FieldSpec(f"f{i}", c, shape) for i, c in enumerate(components))
    parameters = tuple(draw(st.sampled_from(["", "a", "ab"])))
    window = draw(st.sampled_from(windows))
    bundle = draw(st.integers(1, 3)) if window > 1 else 1
    return SampleSpec(parameters, fields, window * bundle, bundle)


def arguments(spec: SampleSpec, number: int, **kwargs: Any) -> list[torch.Tensor]:
    rows = [torch.randn(number, spec.n_inputs, **kwargs)]
    return [*rows, torch.randn(number, spec.state_width, **kwargs)] if spec.window > 1 else rows


@pytest.mark.parametrize("name", SMALL)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_sample_is_answered_in_shape_and_alike_in_any_company(name: str, data: st.DataObject) -> None:
    spec = data.draw(grid_specs(windows=(2, 3) if name == "mp_pde" else (1, 2, 3)))
    model = make_model(section(name=name, **SMALL[name]), spec, 0)
    for mode in (model.train(), model.eval()):  # no batch statistics: training and predicting are one function
        given_rows = arguments(spec, 3)
        together = mode(*given_rows)
        assert together.shape == (3, spec.state_width if spec.window > 1 else spec.width)
        assert together.dtype == torch.float32
        alone = torch.cat([mode(*(a[i : i + 1] for a in given_rows)) for i in range(3)])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


GRID_2D = (FieldSpec("u", 2, (8, 12)), FieldSpec("p", 1, (8, 12)))
GRID_1D = (FieldSpec("u", 1, (16,)),)


@pytest.mark.parametrize("name", ON_GRIDS)
@pytest.mark.parametrize("fields", [GRID_1D, GRID_2D], ids=["1d", "2d"])
def test_the_gradient_reaches_every_parameter_and_all_that_matters_is_a_parameter_or_a_buffer(
    name: str, fields: tuple[FieldSpec, ...]
) -> None:
    spec = SampleSpec(("a",), fields, window=4, bundle=2)
    model = make_model(section(name=name, **SMALL[name]), spec, 0)
    model(*arguments(spec, 4)).square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    # A tensor that neither is would stay behind and could not meet the ones that moved.
    assert model.to("meta")(*arguments(spec, 4, device="meta")).shape == (4, spec.state_width)
    model = make_model(section(name=name, **SMALL[name]), spec, 0).double()
    assert model(*arguments(spec, 4, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("name", ON_GRIDS)
def test_every_input_and_every_step_of_the_state_matters(name: str) -> None:
    spec = SampleSpec(("a", "b"), GRID_1D, window=4, bundle=2)
    model = make_model(section(name=name, **SMALL[name]), spec, 0)
    rows = [a.requires_grad_() for a in arguments(spec, 2)]
    model(*rows).square().sum().backward()
    for row in rows:
        assert row.grad is not None
        assert row.grad.all()


@pytest.mark.parametrize("name", ON_GRIDS)
@pytest.mark.parametrize(("fields", "bundle"), [(GRID_1D, 2), (GRID_2D, 1)], ids=["1d bundles", "2d"])
def test_it_trains_is_restored_and_is_exported_for_any_batch_size(
    name: str, fields: tuple[FieldSpec, ...], bundle: int, tmp_path: Path
) -> None:
    spec = SampleSpec(("a",), fields, window=3 * bundle, bundle=bundle)
    rng = np.random.default_rng(0)
    inputs = rng.uniform(0, 1, (6, spec.window, 2)).astype(np.float32)
    targets = rng.normal(20.0, 5.0, (6, spec.window, spec.width)).astype(np.float32)
    normaliser = Normaliser(spec)
    normaliser.update(inputs, targets)
    batch = Batch(torch.from_numpy(inputs), torch.from_numpy(targets))

    def trainer(seed: int) -> Trainer:
        model, training = section(name=name, **SMALL[name]), TrainingSection(pushforward=1)
        return Trainer(spec, model, training, normaliser, device="cpu", seed=seed)

    one, two = trainer(0), trainer(1)
    one.step(batch)
    kept = copy.deepcopy(one.state_dict())
    one.step(batch)
    two.load_state_dict(kept)
    two.step(batch)
    raw, state = batch.inputs[:, 0], batch.targets[:, :bundle].flatten(1)
    want = one.predict(raw, state)
    assert torch.equal(two.predict(raw, state), want)
    export_model(tmp_path, one, spec, ModelCard("grids", 0, {"a": (0.0, 1.0)}))
    program = Surrogate.load(tmp_path)._program
    for number in (1, 2, 6):
        torch.testing.assert_close(program(raw[:number], state[:number]), want[:number], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ON_GRIDS)
def test_fields_that_share_no_grid_are_refused(name: str) -> None:
    for fields in ((FieldSpec("U", 3, (4,)), FieldSpec("p", 1, (2, 3))), (FieldSpec("U", 1, (8, 8, 8)),)):
        spec = SampleSpec(("a",), fields, window=2)
        with pytest.raises(ModelError, match=rf"{name} needs fields on one structured grid.*got U \("):
            make_model(section(name=name), spec, 0)


def test_options_are_checked_by_name_before_the_shapes_are_known() -> None:
    assert check_options(section(name="fno", modes=[12, 12]), SPEC) is FNO  # which SPEC's three points could not carry
    with pytest.raises(ModelError, match=r"unet has no option 'dept'; did you mean 'depth'\?"):
        check_options(section(name="unet", dept=2), SPEC)


@pytest.mark.usefixtures("user_models")
def test_a_users_model_of_bundles_is_tried_with_bundles() -> None:
    with pytest.raises(ModelError, match=r"input \(2, 3\), \(2, 12\): TypeError"):
        make_model(section(name="my_models:Good"), BUNDLES, 0)
    with pytest.raises(ModelError, match=r"gave \(2, 6\) .* expected \(2, 12\), .*the bundle's 2 after the other"):
        make_model(section(name="my_models:OneStep"), BUNDLES, 0)


@pytest.mark.usefixtures("user_models")
def test_a_users_class_is_found_and_takes_its_options() -> None:
    model = make_model(section(name="my_models:Good", depth=2), SPEC, 0)
    assert model(torch.zeros(4, 3)).shape == (4, 6)


@pytest.mark.usefixtures("user_models")
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "mpl"}, r'name = "mpl": did you mean \'mlp\'\?'),
        (
            {"name": "no_such_module:Net"},
            r"no module named 'no_such_module'; put no_such_module\.py beside the study file",
        ),
        ({"name": "broken_models:Net"}, r"importing broken_models failed: ZeroDivisionError"),
        ({"name": "needy_models:Net"}, r"importing needy_models failed: .*a_package_nobody_has.*install"),
        ({"name": "my_models:Goot"}, r"has no 'Goot'; did you mean 'Good'\?"),
        ({"name": ":Good"}, r'expected "package\.module:Name"'),
        ({"name": "my_models:function"}, r"is a function: expected a class derived from torch\.nn\.Module"),
        ({"name": "my_models:Good", "dept": 2}, r"has no option 'dept'; did you mean 'depth'\?"),
        ({"name": "my_models:Picky"}, r"missing a required argument: 'depth'"),
        ({"name": "my_models:Picky", "depth": 4}, r"cannot be made with depth = 4: ValueError: depth too deep"),
        ({"name": "my_models:WrongShape"}, r"gave \(2, 3, 2\) for a trial batch of 2 samples: expected \(2, 6\)"),
        ({"name": "my_models:Raises"}, r"fails on a trial batch of 2 samples, input \(2, 3\): RuntimeError: boom"),
        ({"name": "my_models:NothingToLearn"}, r"has no trainable parameters"),
        ({"hidden": [16, 0]}, r"hidden = \[16, 0\]: expected a list of widths"),
        ({"activation": "rely"}, r"activation = 'rely': did you mean 'relu'\?"),
        ({"hiden": [16]}, r"mlp has no option 'hiden'; did you mean 'hidden'\?"),
    ],
)
def test_a_wrong_model_is_one_clear_line(values: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        make_model(section(**values), SPEC, 0)
    assert "\n" not in str(caught.value)
