"""Batch normalisation of a batch that has one value for each channel, as the last batch of a study may have.

Such a batch has no variance: torch refuses it in training mode. It is normalised with the running statistics instead, as
in evaluation, and does not change them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_normalisations(model: nn.Module) -> list[nn.Module]:
    """Return the batch normalisations of a model that keep running statistics."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


@contextmanager
def single_values_normalised(normalisations: Sequence[nn.Module]) -> Iterator[None]:
    """Let batch normalisations in training mode take inputs of one value for each channel, too.

    Args:
        normalisations: of a model, from `batch_normalisations`; those that a model keeps in evaluation mode stay there.
    """
    norms = [norm for norm in normalisations if norm.training]
    handles = [norm.register_forward_pre_hook(_choose) for norm in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for norm in norms:
            norm.train()


def _choose(norm: nn.Module, arguments: tuple[Any, ...]) -> None:
    """Use the running statistics where the input has one value for each channel."""
    values = arguments[0]
    norm.train(values.numel() > values.shape[1])
