"""Gradient clipping by norm (Pascanu, Mikolov and Bengio 2013, On the difficulty of training recurrent neural networks)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from penstock_server.training.ensemble import Ensemble, Stacked


def clip_gradients(model: nn.Module, largest: float) -> None:
    """Shorten the gradient of a model, in place, to a largest norm.

    The norm is that of the gradients of all weights together. The members of an ensemble do not influence one another,
    so each has a norm of its own. A norm that is NaN or infinite changes nothing: the loss then shows what has happened.

    Does not wait for a GPU.

    Args:
        model: whose gradients are computed.
        largest: norm above which a gradient is shortened.
    """
    if not isinstance(model, Ensemble):
        _clip(model.parameters(), largest)
    elif isinstance(model.each, Stacked):
        _clip_members(model.parameters(), largest)
    else:
        for member in model.each.models:
            _clip(member.parameters(), largest)


def _clip(parameters: Iterable[nn.Parameter], largest: float) -> None:
    gradients = [p.grad for p in parameters if p.grad is not None]
    factor = _factor(nn.utils.get_total_norm(gradients), largest)
    for gradient in gradients:
        gradient.mul_(factor)


def _clip_members(parameters: Iterable[nn.Parameter], largest: float) -> None:
    """Clip stacked gradients, whose first dimension is that of the members."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients], dim=1)
    factor = _factor(torch.linalg.vector_norm(norms, dim=1), largest)
    for gradient in gradients:
        gradient.mul_(factor.view(-1, *[1] * (gradient.ndim - 1)))


def _factor(norm: Tensor, largest: float) -> Tensor:
    """Return what to multiply gradients of these norms with; as in torch's clip_grads_with_norm_."""
    return torch.where(norm.isfinite(), (largest / (norm + 1e-6)).clamp(max=1.0), 1.0)
