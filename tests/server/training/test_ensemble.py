"""Members of an ensemble are trained as if each were alone, batched or one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from penstock_server.study import Batch, FieldSpec, ModelSection, NamedOptions, SampleSpec, TrainingSection
from penstock_server.training import Ensemble, Normaliser, Trainer, make_members, predict_each
from penstock_server.training.ensemble import SEED_STEP, Separate, Stacked
from penstock_server.training.optimizers import OptimizerError

LINE = SampleSpec(("a",), (FieldSpec("u", 1, (16,)),))
WINDOWS = SampleSpec(("a",), (FieldSpec("u", 1, (16,)),), window=4)
MODELS: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": [16]},
    "fno": {"width": 4, "modes": 4, "layers": 2},
    "unet": {"width": 4, "depth": 2},
    "mp_pde": {"hidden": 8, "layers": 2},
}
CASES = [(name, spec) for name in MODELS for spec in (LINE, WINDOWS) if (name, spec) != ("mp_pde", LINE)]


class WithBatchNorm(nn.Module):
    """A model with buffers that training changes."""

    def __init__(self, spec: SampleSpec) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(spec.n_inputs, 8), nn.BatchNorm1d(8), nn.Linear(8, spec.width))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs)


class Tied(nn.Module):
    """A model whose two layers have one weight."""

    def __init__(self, spec: SampleSpec) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.begin, self.end = nn.Linear(spec.n_inputs, 8), nn.Linear(8, spec.width)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.end(self.second(torch.tanh(self.first(self.begin(inputs)))))


class Branching(nn.Module):
    """A model that torch cannot batch: its control flow depends on values."""

    def __init__(self, spec: SampleSpec) -> None:
        super().__init__()
        self.layer = nn.Linear(spec.n_inputs, spec.width)

    def forward(self, inputs: Tensor) -> Tensor:
        out = self.layer(inputs)
        return out if float(out.detach().sum()) > 0 else 2 * out


def batch(spec: SampleSpec, n: int = 6, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    inputs = rng.uniform(1, 2, (n, spec.window, spec.n_inputs))
    targets = 300 + 50 * np.sin(inputs[:, :, :1] * np.linspace(1, 2, spec.width) + inputs[:, :, 1:])
    return Batch(torch.from_numpy(inputs).float(), torch.from_numpy(targets).float())


def trainer(spec: SampleSpec, model: ModelSection, members: int = 1, seed: int = 3, **training: Any) -> Trainer:
    options = {"optimizer": NamedOptions.model_validate({"name": "sgd", "lr": 0.05}), **training}
    normaliser = Normaliser(spec)
    whole = batch(spec, 50, seed=9)
    normaliser.update(whole.inputs.numpy(), whole.targets.numpy())
    return Trainer(spec, model, TrainingSection(members=members, **options), normaliser, device="cpu", seed=seed)


def section(name: str) -> ModelSection:
    return ModelSection.model_validate({"name": name, **MODELS.get(name, {})})


@pytest.mark.parametrize(
    ("name", "spec"), CASES, ids=lambda value: value if isinstance(value, str) else f"w{value.window}"
)
def test_every_built_in_model_is_batched_and_each_member_is_trained_as_if_alone(name: str, spec: SampleSpec) -> None:
    pushforward = {"pushforward": 1} if spec.window > 1 else {}
    together = trainer(spec, section(name), members=3, **pushforward)
    alone = [trainer(spec, section(name), seed=3 + SEED_STEP * i, **pushforward) for i in range(3)]
    assert isinstance(together.model, Ensemble)
    assert isinstance(together.model.each, Stacked)
    for step in range(4):
        losses = []
        for one in (together, *alone):
            torch.manual_seed(step)  # how many pushforward steps are made
            one.step(batch(spec, seed=step))
            losses.append(one.last_loss())
        assert losses[0] == pytest.approx(np.mean(losses[1:]), rel=1e-4)
    held_out = batch(spec, 5, seed=8)
    arguments = [held_out.inputs[:, 1 % spec.window], *([held_out.targets[:, 0]] if spec.window > 1 else [])]
    want = torch.stack([one.predict(*arguments) for one in alone])
    got = torch.cat(list(together.predict_chunks(*arguments, each_member=True)), dim=1)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-2)  # of fields of about 300
    torch.testing.assert_close(together.predict(*arguments), want.mean(0), rtol=1e-4, atol=1e-2)
    assert float((want[0] - want[1]).abs().max()) > 1.0


@pytest.mark.parametrize(
    ("kind", "layout"), [(WithBatchNorm, (Stacked, Separate)), (Tied, (Stacked,)), (Branching, (Separate,))]
)
def test_models_of_ones_own(kind: type[nn.Module], layout: tuple[type, ...]) -> None:
    model = ModelSection(name=f"test_ensemble:{kind.__name__}")
    together = trainer(LINE, model, members=2)
    alone = [trainer(LINE, model, seed=3 + SEED_STEP * i) for i in range(2)]
    assert isinstance(together.model, Ensemble)
    assert isinstance(together.model.each, layout)
    for step in range(3):
        for one in (together, *alone):
            one.step(batch(LINE, seed=step))
    inputs = batch(LINE, 5, seed=8).inputs[:, 0]
    got = torch.cat(list(together.predict_chunks(inputs, each_member=True)), dim=1)
    torch.testing.assert_close(got, torch.stack([one.predict(inputs) for one in alone]), rtol=1e-4, atol=1e-2)
    if kind is Tied:
        stacked = together.model.each.model
        assert stacked.first.weight is stacked.second.weight
    separate = together.model.eval().separate()
    torch.testing.assert_close(
        torch.stack([own(inputs) for own in separate]), predict_each(together.model, inputs), rtol=1e-5, atol=1e-5
    )


@settings(max_examples=15, deadline=None)
@given(members=st.integers(2, 5), at=st.integers(0, 4), seed=st.integers(0, 1000))
def test_a_member_does_not_see_another(members: int, at: int, seed: int) -> None:
    """Changing one member's weights leaves the gradients of all others."""
    changed = at % members
    gradients = []
    for change in (0.0, 1.0):
        model = make_members(section("mlp"), LINE, TrainingSection(members=members), seed)
        assert isinstance(model, Ensemble)
        weight = next(model.parameters())
        with torch.no_grad():
            weight[changed] += change
        loss = torch.stack([own.square().mean() for own in model(batch(LINE).inputs[:, 0])]).sum()
        loss.backward()
        gradients.append(weight.grad)
    others = [i for i in range(members) if i != changed]
    assert torch.equal(gradients[0][others], gradients[1][others])
    assert not torch.equal(gradients[0][changed], gradients[1][changed])


@pytest.mark.parametrize("optimizer", [{"name": "adam", "lr": 1e-2}, {"name": "adafactor", "lr": 1e-2}])
def test_an_ensemble_continues_from_its_state(optimizer: dict[str, Any]) -> None:
    """An optimizer that looks at whole matrices, such as Adafactor, gets the members one by one."""
    options = {"optimizer": NamedOptions.model_validate(optimizer)}
    whole, cut = (trainer(LINE, section("mlp"), members=2, **options) for _ in range(2))
    assert isinstance(whole.model, Ensemble)
    assert isinstance(whole.model.each, Stacked if optimizer["name"] == "adam" else Separate)
    for step in range(2):
        for one in (whole, cut):
            one.step(batch(LINE, seed=step))
    resumed = trainer(LINE, section("mlp"), members=2, seed=99, **options)
    resumed.load_state_dict(cut.state_dict())
    for one in (whole, resumed):
        one.step(batch(LINE, seed=5))
    for own, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(own, other)


def test_one_optimizer_step_for_all_weights_is_refused() -> None:
    optimizer = NamedOptions.model_validate({"name": "LBFGS"})
    with pytest.raises(
        OptimizerError, match=r"members = 2 with optimizer LBFGS, .* use another optimizer, such as adam"
    ):
        trainer(LINE, section("mlp"), members=2, optimizer=optimizer)


def test_torchs_random_state_is_left_as_it_was() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    make_members(section("mlp"), WINDOWS, TrainingSection(members=3), 0)
    assert torch.equal(torch.get_rng_state(), before)
