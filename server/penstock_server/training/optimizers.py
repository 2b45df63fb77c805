"""Optimizers of torch.optim and schedulers of torch.optim.lr_scheduler, by name in upper or lower case."""

from __future__ import annotations

import inspect
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from torch import nn, optim
from torch.optim import lr_scheduler

from penstock_client.errors import PenstockError
from penstock_client.nearest import nearest
from penstock_server.study import NamedOptions, TrainingSection

T = TypeVar("T")


class OptimizerError(PenstockError):
    """Torch does not have an optimizer or scheduler, or the class rejects its keyword arguments."""


def _subclasses(module: Any, base: type[T]) -> dict[str, type[T]]:
    return {
        name.lower(): cls
        for name, cls in vars(module).items()
        if isinstance(cls, type) and issubclass(cls, base) and cls is not base and not name.startswith("_")
    }


_OPTIMIZERS = _subclasses(optim, optim.Optimizer)
# On one core, Adam's fused step of a 6-256-256-10000 network made a batch of 10 take 14 ms instead of 35 (torch 2.13).
_FUSED = frozenset({"adam", "adamw", "sgd"})
# Each weight's step follows from its own gradients alone.
_ELEMENT_WISE = frozenset(
    {"adadelta", "adagrad", "adam", "adamax", "adamw", "asgd", "nadam", "radam", "rmsprop", "rprop", "sgd"}
)
_CHOICES = {"fused", "foreach", "differentiable"}
# ReduceLROnPlateau steps on a metric; here a scheduler steps once a batch.
_SCHEDULERS = {
    name: cls
    for name, cls in _subclasses(lr_scheduler, lr_scheduler.LRScheduler).items()
    if name not in ("lrscheduler", "reducelronplateau")
}


# Torch's optimizers import torch's compiler, which takes 2 s, only to tell it not to compile them. Penstock compiles no
# optimizer, and sets the mark that they would get. A later torch without this mark imports its compiler again.
for _method in ("add_param_group", "load_state_dict", "state_dict", "zero_grad"):
    _plain = inspect.unwrap(getattr(optim.Optimizer, _method))
    setattr(_plain, "__dynamo_disable", _plain)


def _without_compiler(cls: type[optim.Optimizer]) -> type[optim.Optimizer]:
    """Return an optimizer whose step does the same without importing torch's compiler."""
    step = torch.no_grad()(inspect.unwrap(cls.step))
    return type(cls.__name__, (cls,), {"step": step, "__module__": cls.__module__, "__doc__": cls.__doc__})


_LEAN_OPTIMIZERS = {name: _without_compiler(cls) for name, cls in _OPTIMIZERS.items()}


def make_optimizer(section: NamedOptions, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
    """Make the optimizer that [training] optimizer = { name = "adam", lr = 1e-3 } names.

    Torch's fused implementation is used where there is one, unless the study file chooses (`fused = false`).

    Args:
        section: name and keyword arguments.
        parameters: to optimize.

    Raises:
        OptimizerError: when there is no such optimizer, or it rejects its keyword arguments.
    """
    own = list(parameters)
    free = section.name.lower() in _FUSED and not _CHOICES & section.options.keys()
    fits = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in own)
    # A differentiable step is made with gradients.
    classes = _OPTIMIZERS if section.options.get("differentiable") else _LEAN_OPTIMIZERS
    return _make("optimizer", classes, section, own, {"fused": True} if free and fits else {})


def element_wise(section: NamedOptions) -> bool:
    """Return whether an optimizer's step of each weight follows from the gradients of this weight alone."""
    return section.name.lower() in _ELEMENT_WISE


def make_scheduler(section: NamedOptions | None, optimizer: optim.Optimizer) -> lr_scheduler.LRScheduler | None:
    """Make the scheduler that [training] scheduler = { name = "MultiStepLR", milestones = [1000, 2000] } names.

    It is to be stepped once a batch.

    Args:
        section: name and keyword arguments; None for a constant learning rate.
        optimizer: whose learning rate it changes.

    Raises:
        OptimizerError: when there is no such scheduler, or it rejects its keyword arguments.
    """
    return None if section is None else _make("scheduler", _SCHEDULERS, section, optimizer)


# Options that change the numbers of an optimizer's step, but not what it remembers between steps.
_STATELESS = {
    "lr",
    "weight_decay",
    "betas",
    "eps",
    "alpha",
    "lr_decay",
    "lambd",
    "dampening",
    "nesterov",
    "decoupled_weight_decay",
}


def restore_optimizer(
    optimizer: optim.Optimizer,
    scheduler: lr_scheduler.LRScheduler | None,
    state: Mapping[str, Any],
    before: TrainingSection,
    now: TrainingSection,
) -> str:
    """Continue from a checkpoint, with the optimizer and scheduler that the study has now.

    Where they are another than at the time of the checkpoint, the learning rate is that of a study that has had the
    present settings from its start. The optimizer keeps what it remembers of earlier steps (such as momenta) where the
    change leaves its meaning.

    Args:
        optimizer: of the present study, as new.
        scheduler: of the present study, as new; None for a constant learning rate.
        state: the checkpoint's "optimizer", "scheduler" and "batches".
        before: [training] at the time of the checkpoint.
        now: the present one.

    Returns:
        What could not be kept; "" where everything was.

    Raises:
        ValueError: when the state belongs to another optimizer.
    """
    if (before.optimizer, before.scheduler) == (now.optimizer, now.scheduler):
        optimizer.load_state_dict(state["optimizer"])
        if scheduler is not None and state["scheduler"] is not None:
            own, kept = vars(scheduler), state["scheduler"].items()
            scheduler.load_state_dict({k: Counter(v) if isinstance(own.get(k), Counter) else v for k, v in kept})
        return ""
    old, new, batches = before.optimizer, now.optimizer, int(state["batches"])
    names = old.options.keys() | new.options.keys()
    changed = {name for name in names if old.options.get(name) != new.options.get(name)}
    keeps = old.name.lower() == new.name.lower() and changed <= _STATELESS
    if keeps:
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state["optimizer"]["state"]})
    if scheduler is not None:
        last = getattr(scheduler, "total_steps", None)
        with warnings.catch_warnings():  # torch expects a step of the optimizer before each of the scheduler
            warnings.simplefilter("ignore")
            for _ in range(batches if last is None else min(batches, last - 1)):
                scheduler.step()
    return "" if keeps else f"[training] optimizer was changed at batch {batches}: the new one began without momenta"


def _make(
    key: str,
    classes: Mapping[str, Callable[..., T]],
    section: NamedOptions,
    first: object,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> T:
    place = f"[training] {key}"
    cls = classes.get(section.name.lower())
    if cls is None:
        names = [_name(c) for c in classes.values()]
        raise OptimizerError(f'{place} name = "{section.name}": {nearest(section.name, names)}')
    signature = inspect.signature(cls)
    known = list(signature.parameters)[1:]
    for option in section.options:
        if option not in known:
            raise OptimizerError(f"{place} {_name(cls)} has no option {option!r}; {nearest(option, known)}")
    try:
        signature.bind(first, **section.options)
        return cls(first, **section.options, **more)
    except Exception as error:  # torch checks values with ValueError, TypeError and assertions alike
        options = ", ".join(f"{k} = {v!r}" for k, v in section.options.items()) or "no options"
        raise OptimizerError(f"{place} {_name(cls)} does not take {options}: {error}") from error


def _name(cls: Callable[..., object]) -> str:
    return str(getattr(cls, "__name__", cls))
