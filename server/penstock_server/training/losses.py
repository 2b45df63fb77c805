"""Loss functions of prediction and target, both of shape (batch, width) and in normalised units."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from penstock_client.errors import PenstockError
from penstock_client.nearest import nearest
from penstock_server.study import load_import_path

Loss = Callable[[Tensor, Tensor], Tensor]


class LossError(PenstockError):
    """A loss does not exist, or is not a differentiable scalar function of two tensors."""


def relative_l2(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean over the batch of ||prediction - target||₂ / ||target||₂, each norm over a whole row.

    A target row of zeros counts as one of norm 1e-6 per element, so that the loss stays finite.

    Args:
        prediction: shape (batch, width).
        target: shape (batch, width).

    Returns:
        A scalar.
    """
    floor = 1e-6 * target.shape[1] ** 0.5
    norms = torch.linalg.vector_norm(target, dim=1).clamp_min(floor)
    ratios: Tensor = torch.linalg.vector_norm(prediction - target, dim=1) / norms
    return ratios.mean()


LOSSES: dict[str, Loss] = {"mse": functional.mse_loss, "l1": functional.l1_loss, "relative_l2": relative_l2}


def make_loss(name: str) -> Loss:
    """Return a loss by its name.

    Args:
        name: one of LOSSES, or "package.module:function".

    Raises:
        LossError: when there is no such loss, or it is not a differentiable scalar function of two tensors.
        ImportPathError: when the path leads to nothing.
    """
    if ":" not in name:
        if name not in LOSSES:
            raise LossError(f'[training] loss = "{name}": {nearest(name, LOSSES)}, or "package.module:function"')
        return LOSSES[name]
    loss = load_import_path(name)
    if not callable(loss):
        raise LossError(f'[training] loss = "{name}" is a {type(loss).__name__}: expected a function')
    try:
        trial: object = loss(torch.ones(2, 3, requires_grad=True), torch.zeros(2, 3))
    except Exception as error:  # a user's function may raise anything
        raise LossError(
            f'[training] loss = "{name}" fails on a trial batch: {type(error).__name__}: {error}'
        ) from error
    if not (isinstance(trial, Tensor) and trial.ndim == 0 and trial.requires_grad):
        raise LossError(
            f'[training] loss = "{name}": expected a differentiable scalar tensor from (prediction, target), '
            f"got {trial!r}"
        )
    return loss  # type: ignore[no-any-return]
