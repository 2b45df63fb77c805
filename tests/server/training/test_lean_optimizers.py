"""Optimizers make the same steps as torch's own, without importing torch's compiler."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn, optim

from penstock_server.study import NamedOptions
from penstock_server.training import make_optimizer

NAMES = ("adam", "adamw", "sgd", "rmsprop", "adagrad", "adadelta", "adamax", "nadam", "radam", "rprop", "asgd")


def small() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(5, 3)


def trained(model: nn.Linear, optimizer: optim.Optimizer) -> list[list[float]]:
    for number in range(3):
        optimizer.zero_grad()
        model(torch.full((4, 5), 1.0 + number)).square().mean().backward()
        optimizer.step()
    return [parameter.flatten().tolist() for parameter in model.parameters()]


@pytest.mark.parametrize("name", NAMES)
def test_steps_are_torchs_own(name: str) -> None:
    ours, theirs = small(), small()
    classes = {cls.__name__.lower(): cls for cls in vars(optim).values() if isinstance(cls, type)}
    section = NamedOptions.model_validate({"name": name, "lr": 0.01, "foreach": False})
    expected = trained(theirs, classes[name](theirs.parameters(), lr=0.01, foreach=False))
    assert trained(ours, make_optimizer(section, ours.parameters())) == expected


def test_no_optimizer_imports_torchs_compiler() -> None:
    code = f"""
import sys, torch
from penstock_server.study import NamedOptions
from penstock_server.training import make_optimizer, make_scheduler
for name in {NAMES}:
    model = torch.nn.Linear(5, 3)
    optimizer = make_optimizer(NamedOptions.model_validate(dict(name=name)), model.parameters())
    scheduler = make_scheduler(NamedOptions.model_validate(dict(name="exponentiallr", gamma=0.9)), optimizer)
    optimizer.zero_grad()
    model(torch.ones(4, 5)).mean().backward()
    optimizer.step()
    scheduler.step()
    optimizer.load_state_dict(optimizer.state_dict())
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
