"""[training] precision and compile: the same weights, by their names, from cheaper arithmetic."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_trainers import LINE, MODELS, WINDOWS, gradient, samples, trainer, weights
from torch import nn

from penstock_server.training import Trainer
from penstock_server.training.forward import CompiledModel

ADAM = {"name": "adam", "lr": 3e-3}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("members", [1, 2])
def test_bfloat16_has_the_gradient_of_float32_to_its_digits(model: str, members: int) -> None:
    batch = samples(WINDOWS, 16)
    full, low = (trainer(WINDOWS, model, members=members, precision=p) for p in ("float32", "bfloat16"))
    for one in (full, low):
        one.step(batch)
    of_full, of_low = gradient(full), gradient(low)
    assert of_low.dtype == torch.float32
    assert float((of_low - of_full).norm() / of_full.norm()) < 0.1  # 8 binary digits
    assert not torch.equal(of_low, of_full)
    assert low.last_loss() == pytest.approx(full.last_loss(), rel=0.05)
    assert {name: t.dtype for name, t in low.model.state_dict().items()} == {
        name: t.dtype for name, t in full.model.state_dict().items()
    }


def test_bfloat16_training_reaches_the_loss_of_float32_and_validates_in_float32() -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        one = trainer(LINE, optimizer=ADAM, precision=precision)
        for number in range(150):
            one.step(samples(LINE, 16, number))
        losses.append(one.last_loss() or 0.0)
        assert torch.equal(one.predict(samples(LINE, 5).inputs[:, 0]), _in_float32(one))
    assert losses[1] == pytest.approx(losses[0], rel=0.3)
    assert losses[0] < 0.4  # 1 without learning


def _in_float32(one: Trainer) -> torch.Tensor:
    with torch.no_grad():
        affine = one.normaliser.affine()
        return affine.raw_targets(one.model(affine.inputs(samples(LINE, 5).inputs[:, 0])))


def test_steps_without_gradient_leave_those_with_gradient_theirs() -> None:
    """Pushforward: within one autocast, torch would take the weights of a call without gradient again."""
    batch, gradients = samples(WINDOWS, 8), []
    for precision in ("float32", "bfloat16"):
        one = trainer(WINDOWS, precision=precision, pushforward=2)
        torch.manual_seed(3)  # of 0, 1 and 2 steps it draws 2
        one.step(batch)
        gradients.append(gradient(one))
    assert float((gradients[1] - gradients[0]).norm() / gradients[0].norm()) < 0.1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, about its own modules
def test_compiled_training_is_that_of_the_model_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    plain, compiled = trainer(LINE), trainer(LINE, compile=True, batch_size=16)
    again = trainer(LINE, compile=True, batch_size=16)
    for number, size in enumerate((16, 16, 5, 16)):
        for one in (plain, compiled):
            one.step(samples(LINE, size, number))
        if number == 1:
            again.load_state_dict(compiled.state_dict())
        elif number > 1:
            again.step(samples(LINE, size, number))
    assert compiled.warnings == []
    torch.testing.assert_close(weights(compiled), weights(plain), rtol=1e-4, atol=1e-6)
    assert torch.equal(weights(again), weights(compiled))
    assert compiled.model.state_dict().keys() == plain.model.state_dict().keys()
    assert list(tmp_path.iterdir())  # it was compiled, and nowhere else


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, about its own modules
def test_training_goes_on_where_nothing_can_be_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(config.cpp, "cxx", (str(tmp_path / "no-compiler"),))
    plain, one = trainer(LINE, accumulate=2), trainer(LINE, compile=True, batch_size=16, accumulate=2)
    for number in range(2):
        for each in (plain, one):
            each.step(samples(LINE, 16, number))
    assert torch.equal(weights(one), weights(plain))
    (warning,) = one.warnings
    assert warning.startswith("[training] compile = true: torch.compile failed (")
    assert "expected a C++ compiler" in warning


def test_a_model_that_fails_by_itself_says_so() -> None:
    class Failing(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            raise ArithmeticError(f"no {inputs.ndim} dimensions")

    compiled = CompiledModel(Failing(), 4)
    with pytest.raises(ArithmeticError, match="no 2 dimensions"):
        compiled(torch.zeros(2, 2))
    assert compiled.failure == ""
