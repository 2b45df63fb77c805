"""From [model] of a study file to a torch module that has been tried on two samples."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from penstock_client.errors import PenstockError
from penstock_client.nearest import nearest
from penstock_server.study import ImportPathError, ModelSection, SampleSpec, load_import_path
from penstock_server.training.models.fno import FNO
from penstock_server.training.models.mlp import MLP
from penstock_server.training.models.mp_pde import MPPDE
from penstock_server.training.models.unet import UNet

MODELS: dict[str, type[nn.Module]] = {"mlp": MLP, "fno": FNO, "unet": UNet, "mp_pde": MPPDE}


class ModelError(PenstockError):
    """A [model] that cannot be found, cannot be built with its options, or does not meet the protocol of a model."""


def make_model(section: ModelSection, spec: SampleSpec, seed: int) -> nn.Module:
    """The study's model on the CPU, in training mode; the same seed gives the same weights.

    A model is a torch.nn.Module made as `Model(spec, **options)`, in normalised units:
    window = 1: `forward(inputs (batch, n_inputs)) -> (batch, width)`;
    window > 1: `forward(inputs (batch, n_inputs), state (batch, state_width)) -> (batch, state_width)`. The state is `bundle`
    consecutive time steps laid end to end, the earliest first, and the answer the `bundle` time steps that follow.
    The time in `inputs` is always that of the (first) time step to predict.

    Raises ModelError. Torch's global random state is left as it was.
    """
    cls = check_options(section, spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = cls(spec, **section.options)
        except Exception as error:  # a user's constructor may raise anything
            options = ", ".join(f"{k} = {v!r}" for k, v in section.options.items()) or "no options"
            raise ModelError(
                f"[model] {section.name} cannot be made with {options}: {type(error).__name__}: {error}"
            ) from error
        _try_out(model, section.name, spec)
    return model


def check_options(section: ModelSection, spec: SampleSpec) -> type[nn.Module]:
    """The model's class, once its constructor is known to take the options by name; it is not called. Raises ModelError.

    For where the fields' shapes are not known yet: whether the values fit them, only making the model tells.
    """
    cls = model_class(section.name)
    signature = inspect.signature(cls)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    known = list(signature.parameters)[1:]
    for option in section.options:
        if not takes_any and option not in known:
            hint = nearest(option, known) if known else "it takes none"
            raise ModelError(f"[model] {section.name} has no option {option!r}; {hint}")
    try:
        signature.bind(spec, **section.options)
    except TypeError as error:
        raise ModelError(
            f"[model] {section.name}: {error}; a model is made as {cls.__name__}(spec, **options)"
        ) from error
    return cls


def model_class(name: str) -> type[nn.Module]:
    """The class behind a registered name or "package.module:Class". Raises ModelError."""
    if ":" not in name:
        if name not in MODELS:
            raise ModelError(f'[model] name = "{name}": {nearest(name, MODELS)}, or "package.module:Class"')
        return MODELS[name]
    try:
        cls = load_import_path(name)
    except ImportPathError as error:
        raise ModelError(f"[model] name = {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        kind = cls.__name__ if isinstance(cls, type) else type(cls).__name__
        raise ModelError(f'[model] name = "{name}" is a {kind}: expected a class derived from torch.nn.Module')
    return cls


def _try_out(model: Any, name: str, spec: SampleSpec) -> None:
    """One forward pass of two samples, so that a model that does not fit is found before anything is simulated."""
    arguments = [torch.randn(2, spec.n_inputs)]
    if spec.window > 1:
        arguments.append(torch.randn(2, spec.state_width))
    given = ", ".join(str(tuple(a.shape)) for a in arguments)
    want = (2, spec.state_width if spec.window > 1 else spec.width)
    model.eval()
    try:
        with torch.no_grad():
            out = model(*arguments)
    except Exception as error:  # a user's forward may raise anything
        raise ModelError(
            f"[model] {name} fails on a trial batch of 2 samples, input {given}: {type(error).__name__}: {error}"
        ) from error
    model.train()
    shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
    if shape != want:
        fields = ", ".join(f"{f.name} {(*f.shape, f.components)}" for f in spec.fields)
        steps = f", one time step of the bundle's {spec.bundle} after the other" if spec.bundle > 1 else ""
        raise ModelError(
            f"[model] {name} gave {shape} for a trial batch of 2 samples: expected {want}, the fields {fields} "
            f"flattened and laid end to end (spec.join does it){steps}"
        )
    if not any(p.requires_grad for p in model.parameters()):
        raise ModelError(f"[model] {name} has no trainable parameters: assign its layers to attributes in __init__")
