"""Batch normalisation of a batch that has one value for each channel, as the last batch of a study may have.

Such a batch has no variance: torch refuses it in training mode. It is normalised with the running statistics instead, as
in evaluation, and does not change them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def single_values_normalised(model: nn.Module) -> Iterator[None]:
    """Let the batch normalisations of a model in training mode take inputs of one value for each channel, too.

    Args:
        model: the model; those of its normalisations that keep no running statistics are left alone.
    """
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats and module.training
    ]
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
