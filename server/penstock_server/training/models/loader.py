"""From [model] of a study file to a torch module, which is tried on two samples."""

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
    """A [model] cannot be found, cannot be made with its options, or does not follow the protocol of a model."""


def make_model(section: ModelSection, spec: SampleSpec, seed: int) -> nn.Module:
    """Make the study's model on the CPU, in training mode; the same seed gives the same weights.

    A model is a torch.nn.Module made as `Model(spec, **options)` that works in normalised units:

    - window = 1: `forward(inputs) -> targets`, shapes (batch, n_inputs) and (batch, width);
    - window > 1: `forward(inputs, state) -> state`, shapes (batch, n_inputs), (batch, state_width) and
      (batch, state_width). The state is `bundle` consecutive time steps laid end to end, the earliest first; the result
      is the `bundle` time steps that follow.

    The time in `inputs` is that of the first time step to predict. Torch's global random state is left as it was.

    Args:
        section: [model] of the study file.
        spec: shapes of the samples.
        seed: of the weights.

    Raises:
        ModelError: when the model cannot be found or made, or does not follow this protocol.
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
    """Return the model's class if its constructor takes the options by name.

    The constructor is not called. This is for when the fields' shapes are not known yet: whether the values fit them is
    known once the model is made.

    Args:
        section: [model] of the study file.
        spec: shapes of the samples.

    Raises:
        ModelError: when there is no such model, or it does not take an option.
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
    """Return the class of a model.

    Args:
        name: one of MODELS, or "package.module:Class".

    Raises:
        ModelError: when there is no such class.
    """
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
    """Make one forward pass of two samples, so that a wrong model is found before anything is simulated."""
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
