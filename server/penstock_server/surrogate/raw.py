"""The trained model in raw units, as it is exported."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from penstock_server.training import Affine, Ensemble, predict_each


class RawSurrogate(nn.Module):
    """The surrogate in raw units: normalisation, model, inverse normalisation.

    Args:
        model: the trained model, in normalised units.
        affine: mean and standard deviation of inputs and targets.
    """

    input_mean: Tensor
    input_std: Tensor
    target_mean: Tensor
    target_std: Tensor
    target_scale: Tensor

    def __init__(self, model: nn.Module, affine: Affine) -> None:
        super().__init__()
        self.model = model
        for name, tensor in vars(affine).items():
            self.register_buffer(name, tensor.clone())

    def forward(self, inputs: Tensor, state: Tensor | None = None) -> Tensor:
        """Predict in raw units.

        Args:
            inputs: (batch, n_inputs).
            state: with window > 1, the bundle before, (batch, state_width); otherwise None.

        Returns:
            Targets (batch, width), or with window > 1 (batch, state_width).
        """
        affine = Affine(self.input_mean, self.input_std, self.target_mean, self.target_std, self.target_scale)
        arguments = [affine.inputs(inputs)]
        if state is not None:
            arguments.append(affine.targets(state))
        return affine.raw_targets(self.model(*arguments))


class RawEnsemble(nn.Module):
    """The members of an ensemble in raw units.

    Args:
        members: the trained members, in normalised units.
        affine: mean and standard deviation of inputs and targets.
    """

    def __init__(self, members: Sequence[nn.Module], affine: Affine) -> None:
        super().__init__()
        self.members = nn.ModuleList(RawSurrogate(member, affine) for member in members)

    def forward(self, inputs: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Predict in raw units.

        Args:
            inputs: (batch, n_inputs).
            state: as in `RawSurrogate`, the same for all members.

        Returns:
            Mean and standard deviation over the members, each as `RawSurrogate` returns its targets.
        """
        each = torch.stack([member(inputs, state) for member in self.members])
        return each.mean(0), each.std(0)


def raw_surrogate(model: nn.Module, affine: Affine) -> nn.Module:
    """Return a trained model as it is exported: one output, or of an ensemble two.

    Args:
        model: on the CPU.
        affine: mean and standard deviation of inputs and targets.
    """
    made = RawEnsemble(model.separate(), affine) if isinstance(model, Ensemble) else RawSurrogate(model, affine)
    return made.eval()


def raw_outputs(model: nn.Module, affine: Affine, arguments: Sequence[Tensor]) -> list[Tensor]:
    """Evaluate a trained model as it is trained; what was exported must give the same numbers.

    Args:
        model: on the CPU, in evaluation mode.
        affine: mean and standard deviation of inputs and targets.
        arguments: inputs and, with windows, the state, in raw units.

    Returns:
        The targets; of an ensemble mean and standard deviation over its members.
    """
    normalised = [affine.inputs(arguments[0]), *(affine.targets(state) for state in arguments[1:])]
    each = affine.raw_targets(predict_each(model, *normalised))
    return [each[0]] if len(each) == 1 else [each.mean(0), each.std(0)]


def copied_to_cpu(model: nn.Module) -> nn.Module:
    """Copy a model to the CPU without a second copy on its own device, whose memory may be full.

    Args:
        model: on any device.
    """
    copies: dict[int, Any] = {}
    for parameter in model.parameters():
        copies[id(parameter)] = nn.Parameter(
            parameter.detach().to("cpu", copy=True), requires_grad=parameter.requires_grad
        )
    for buffer in model.buffers():
        copies[id(buffer)] = buffer.detach().to("cpu", copy=True)
    return copy.deepcopy(model, copies).cpu()
