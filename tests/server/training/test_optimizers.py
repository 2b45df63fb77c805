import sys
from pathlib import Path

import pytest
import torch

from penstock_client.errors import PenstockError
from penstock_server.study import NamedOptions
from penstock_server.training import make_loss, make_optimizer, make_scheduler
from penstock_server.training.losses import LossError, relative_l2
from penstock_server.training.optimizers import OptimizerError


def named(**values: object) -> NamedOptions:
    return NamedOptions.model_validate(values)


def parameters() -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.ones(3))]


@pytest.mark.parametrize(
    ("name", "want"),
    [("adam", torch.optim.Adam), ("AdamW", torch.optim.AdamW), ("SGD", torch.optim.SGD), ("lbfgs", torch.optim.LBFGS)],
)
def test_optimizers_by_name_in_any_case(name: str, want: type) -> None:
    optimizer = make_optimizer(named(name=name, lr=0.02), parameters())
    assert isinstance(optimizer, want)
    assert type(optimizer).__name__ == want.__name__
    assert optimizer.param_groups[0]["lr"] == 0.02


def test_the_fused_step_is_taken_unless_the_study_chooses_and_is_the_same_step() -> None:
    ends = []
    for choice in ({}, {"fused": False}, {"foreach": True}):
        (weight,) = own = parameters()
        optimizer = make_optimizer(named(name="adam", lr=0.1, weight_decay=0.01, **choice), own)
        assert bool(optimizer.param_groups[0]["fused"]) == (not choice)
        for _ in range(5):
            optimizer.zero_grad()
            (weight**2).sum().backward()
            optimizer.step()
        ends.append(weight.detach())
    torch.testing.assert_close(ends[0], ends[1])
    torch.testing.assert_close(ends[0], ends[2])


def test_multi_step_scheduler_halves_at_its_milestones() -> None:
    optimizer = make_optimizer(named(name="adam", lr=1e-3, weight_decay=1e-4), parameters())
    scheduler = make_scheduler(named(name="multisteplr", milestones=[2, 4], gamma=0.5), optimizer)
    assert scheduler is not None
    rates = []
    for _ in range(5):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [1e-3, 5e-4, 5e-4, 2.5e-4, 2.5e-4]
    assert make_scheduler(None, optimizer) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "adamm"}, r'optimizer name = "adamm": did you mean \'Adam\w?\'\?'),
        ({"name": "Optimizer"}, r'optimizer name = "Optimizer"'),
        ({"name": "adam", "learning_rate": 1e-3}, r"Adam has no option 'learning_rate'; expected one of .*lr"),
        ({"name": "adam", "lr": -1.0}, r"Adam does not take lr = -1\.0: Invalid learning rate"),
        ({"name": "adam", "wieght_decay": 1.0}, r"did you mean 'weight_decay'\?"),
    ],
)
def test_a_wrong_optimizer_is_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(OptimizerError, match=message):
        make_optimizer(named(**values), parameters())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "MultiStep"}, r"did you mean 'MultiStepLR'\?"),
        ({"name": "MultiStepLR"}, r"missing a required argument: 'milestones'"),
        ({"name": "ReduceLROnPlateau"}, r'scheduler name = "ReduceLROnPlateau"'),
        ({"name": "OneCycleLR", "max_lr": 0.1}, r"OneCycleLR does not take max_lr = 0\.1: .*total_steps"),
        ({"name": "StepLR", "stepsize": 3}, r"did you mean 'step_size'\?"),
    ],
)
def test_a_wrong_scheduler_is_named(values: dict[str, object], message: str) -> None:
    optimizer = make_optimizer(named(name="sgd", lr=0.1), parameters())
    with pytest.raises(OptimizerError, match=message):
        make_scheduler(named(**values), optimizer)


def test_losses() -> None:
    prediction, target = torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    assert make_loss("mse")(prediction, target) == pytest.approx((16 + 1) / 4)
    assert make_loss("l1")(prediction, target) == pytest.approx(5 / 4)
    assert make_loss("relative_l2")(prediction, target) == pytest.approx((4 / 5 + 1 / 2) / 2)
    assert torch.isfinite(relative_l2(prediction, torch.zeros(2, 2)))
    with pytest.raises(LossError, match=r"did you mean 'mse'\?"):
        make_loss("mes")


def test_a_users_loss_must_give_a_differentiable_scalar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_losses.py").write_text(
        "def good(prediction, target):\n    return (prediction - target).abs().max()\n"
        "def rows(prediction, target):\n    return (prediction - target).sum(1)\n"
        "def raises(prediction, target):\n    raise RuntimeError('boom')\n"
        "number = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_losses", raising=False)
    assert make_loss("my_losses:good")(torch.ones(2, 3), torch.zeros(2, 3)) == 1
    for name, message in (
        ("rows", "expected a differentiable scalar"),
        ("number", "is a int: expected a function"),
        ("raises", "boom"),
    ):
        with pytest.raises(LossError, match=message):
            make_loss(f"my_losses:{name}")
    with pytest.raises(PenstockError, match="has no 'goood'"):
        make_loss("my_losses:goood")
