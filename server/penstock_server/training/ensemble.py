"""Several models of one kind with different weights, trained on the same batches, as one module.

Lakshminarayanan, Pritzel and Blundell 2017, Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles:
the members differ by their initial weights alone, and where they disagree, the prediction is uncertain.

The members do not influence one another: each is trained on its own error, as if it were alone.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from penstock_server.study import ModelSection, SampleSpec, TrainingSection
from penstock_server.training.losses import LOSSES, Loss, make_loss
from penstock_server.training.models import make_model
from penstock_server.training.optimizers import OptimizerError, element_wise

SEED_STEP = 7919
"""Between the seeds of two members' weights."""


class Ensemble(nn.Module):
    """The members as one model, with the arguments of one model.

    The members are batched (`Stacked`) or evaluated one after the other (`Separate`).

    In training mode it returns the prediction of each member, (members, batch, width), since each is trained on its own
    error; in evaluation mode their mean, (batch, width). A state may have a first dimension for members, too.

    Args:
        each: gives the predictions of all members.
        kind: class of the members.

    Attributes:
        members: number of members.
    """

    def __init__(self, each: Stacked | Separate, kind: type[nn.Module]) -> None:
        super().__init__()
        self.each = each
        self.members, self.kind = each.members, kind

    def forward(self, inputs: Tensor, state: Tensor | None = None) -> Tensor:
        """Predict in normalised units.

        Args:
            inputs: (batch, n_inputs).
            state: with window > 1, (batch, state_width), or (members, batch, state_width).

        Returns:
            In training mode (members, batch, width), or with window > 1 (members, batch, state_width); in evaluation
            mode the mean over the members.
        """
        predictions: Tensor = self.each(inputs, state)
        return predictions if self.training else predictions.mean(0)

    def separate(self) -> list[nn.Module]:
        """Return each member as a module of its own; the tensors are copies."""
        return self.each.separate()


class Separate(nn.Module):
    """Members that are evaluated one after the other.

    Args:
        models: the members.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        self.members = len(models)

    def forward(self, inputs: Tensor, state: Tensor | None = None) -> Tensor:
        """Return the predictions of all members, as `Ensemble` describes them."""
        states = [state] * self.members if state is None or state.ndim == 2 else list(state)
        pairs = zip(self.models, states, strict=True)
        return torch.stack([model(inputs) if own is None else model(inputs, own) for model, own in pairs])

    def separate(self) -> list[nn.Module]:
        """Return a copy of each member."""
        return [copy.deepcopy(model) for model in self.models]


class Stacked(nn.Module):
    """Members whose weights are stacked, so that one operation of torch serves all of them (torch.func.vmap).

    Parameters, and buffers that a state_dict holds, get a first dimension for the members. Other buffers, such as
    coordinates, are shared. The weights of linear layers are kept transposed, (members, in, out): their gradients come
    out of the matrix products in this order, and would have to be copied to another one.

    Args:
        models: the members.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = len(models)
        self.model = copy.deepcopy(models[0])
        kept = self.model.state_dict().keys()
        turned = {f"{name}.weight".removeprefix(".") for name, m in self.model.named_modules() if type(m) is nn.Linear}
        self._turned = frozenset(turned & {name for name, _ in self.model.named_parameters(remove_duplicate=False)})
        stacks: dict[int, nn.Parameter] = {}  # by the parameter of the first member: one may have several names
        for name, own in list(self.model.named_parameters(remove_duplicate=False)):
            if id(own) not in stacks:
                together = torch.stack([self._turn(name, _tensor(model, name).detach()) for model in models])
                stacks[id(own)] = nn.Parameter(together, requires_grad=own.requires_grad)
            setattr(*_place(self.model, name), stacks[id(own)])
        for name, _ in list(self.model.named_buffers()):
            if name in kept:
                setattr(*_place(self.model, name), torch.stack([_tensor(model, name) for model in models]))
        self._kept = frozenset(kept)

    def forward(self, inputs: Tensor, state: Tensor | None = None) -> Tensor:
        """Return the predictions of all members, as `Ensemble` describes them."""
        named = (*self.model.named_parameters(), *self.model.named_buffers())
        tensors = {name: self._turn(name, tensor) for name, tensor in named if name in self._kept}

        def one(own: dict[str, Tensor], own_state: Tensor | None) -> Tensor:
            arguments = (inputs,) if own_state is None else (inputs, own_state)
            return functional_call(self.model, own, arguments)  # type: ignore[no-any-return]

        of_members = 0 if state is not None and state.ndim == 3 else None
        predictions: Tensor = vmap(one, in_dims=(0, of_members), randomness="different")(tensors, state)
        return predictions

    def separate(self) -> list[nn.Module]:
        """Return each member as a module of its own."""
        models = []
        for member in range(self.members):
            model = copy.deepcopy(self.model)
            own: dict[int, nn.Parameter] = {}
            for name, stack in list(model.named_parameters(remove_duplicate=False)):
                if id(stack) not in own:
                    tensor = self._turn(name, stack.detach()[member]).clone(memory_format=torch.contiguous_format)
                    own[id(stack)] = nn.Parameter(tensor, requires_grad=stack.requires_grad)
                setattr(*_place(model, name), own[id(stack)])
            for name, buffer in list(model.named_buffers()):
                if name in self._kept:
                    setattr(*_place(model, name), buffer[member].clone())
            models.append(model)
        return models

    def _turn(self, name: str, tensor: Tensor) -> Tensor:
        return tensor.mT if name in self._turned else tensor


def make_members(section: ModelSection, spec: SampleSpec, training: TrainingSection, seed: int) -> nn.Module:
    """Make the model of a study, or its ensemble, on the CPU, in training mode.

    Members are batched where torch can batch the model, with the same numbers, and where the optimizer treats every
    weight by itself; else they are separate.

    Args:
        section: [model] of the study file.
        spec: shapes of the samples.
        training: [training] of the study file.
        seed: of the weights; that of the first member.

    Raises:
        ModelError: when the model cannot be found or made, or does not follow the protocol of a model.
        OptimizerError: when the optimizer would mix the members.
    """
    models = [make_model(section, spec, (seed + SEED_STEP * i) % 2**63) for i in range(training.members)]
    if len(models) == 1:
        return models[0]
    if training.optimizer.name.lower() == "lbfgs":
        raise OptimizerError(
            f"[training] members = {training.members} with optimizer LBFGS, which takes one step for all weights together: "
            "members would influence one another; use another optimizer, such as adam"
        )
    separate = Separate(models)
    if element_wise(training.optimizer):
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("error")  # torch warns where vmap only loops
            try:
                stacked = Stacked(models)
                if _same(stacked, separate, spec):
                    return Ensemble(stacked, type(models[0]))
            except Exception:  # vmap fails in many ways on a user's forward; then it is not used
                pass
    return Ensemble(separate, type(models[0]))


def predict_each(model: nn.Module, *arguments: Tensor) -> Tensor:
    """Return the predictions of all members, (members, batch, width); of one model with one member."""
    predictions: Tensor = model.each(*arguments) if isinstance(model, Ensemble) else model(*arguments)[None]
    return predictions


def mean_of_members(name: str) -> Loss:
    """Return the loss of an ensemble: the mean over its members of the loss of each.

    Args:
        name: of the loss of one prediction and its target, (batch, width), as in `make_loss`.
    """
    loss = make_loss(name)

    def at_once(predictions: Tensor, target: Tensor) -> Tensor:
        return loss(predictions.flatten(0, 1), target.repeat(len(predictions), 1))

    def one_by_one(predictions: Tensor, target: Tensor) -> Tensor:
        return torch.stack([loss(own, target) for own in predictions]).mean()

    # Those are means over the rows of a batch.
    return at_once if name in LOSSES else one_by_one


def _same(stacked: Stacked, separate: Separate, spec: SampleSpec) -> bool:
    """Whether batched members train, and predict as separate ones do; copies of both are tried."""
    arguments = [torch.randn(3, spec.n_inputs)]
    if spec.window > 1:
        arguments.append(torch.randn(3, spec.state_width))
    trial, one_by_one = copy.deepcopy(stacked), copy.deepcopy(separate)
    trial.train()(*arguments).square().mean().backward()
    if spec.window > 1:
        trial(arguments[0], torch.stack([arguments[1]] * stacked.members))  # as in pushforward training
    with torch.no_grad():
        got, want = copy.deepcopy(stacked).eval()(*arguments), one_by_one.eval()(*arguments)
    scale = float(want.abs().max())
    return got.shape == want.shape and bool(torch.allclose(got, want, rtol=1e-4, atol=1e-5 * scale))


def _place(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that owns a parameter or buffer, and the name there."""
    path, _, leaf = name.rpartition(".")
    return model.get_submodule(path), leaf


def _tensor(model: nn.Module, name: str) -> Any:
    return getattr(*_place(model, name))
