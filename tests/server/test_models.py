import sys
from pathlib import Path

import pytest
import torch

from penstock_server.config import ModelSection
from penstock_server.models import MLP, ModelError, make_model
from penstock_server.schema import FieldSpec, SampleSpec

SPEC = SampleSpec(("a", "b"), (FieldSpec("U", 2, (3,)),))
WINDOWS = SampleSpec(("a", "b"), (FieldSpec("U", 2, (3,)),), window=3)

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
