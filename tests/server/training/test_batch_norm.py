"""Batch normalisation where a batch has one sample, as the last one of a study may."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from penstock_server.training.batch_norm import batch_normalisations, single_values_normalised


@pytest.mark.parametrize(
    ("norm", "shape", "single"),
    [(nn.BatchNorm1d(3), (1, 3), True), (nn.BatchNorm1d(3), (4, 3), False), (nn.BatchNorm2d(3), (1, 3, 2, 2), False)],
)
def test_one_value_of_a_channel_is_normalised_with_the_running_statistics(
    norm: nn.Module, shape: tuple[int, ...], single: bool
) -> None:
    model = nn.Sequential(norm).train()
    norm.running_mean.fill_(2.0)
    values = torch.randn(shape)
    with single_values_normalised(batch_normalisations(model)):
        out = model(values)
    unchanged = torch.equal(norm.running_mean, torch.full((3,), 2.0))
    assert unchanged is single
    if single:
        torch.testing.assert_close(out, (values - 2.0) / (1 + norm.eps) ** 0.5)
    assert norm.training
    assert not norm._forward_pre_hooks


def test_a_normalisation_that_is_frozen_stays_so() -> None:
    norm = nn.BatchNorm1d(3)
    model = nn.Sequential(norm)
    model.train()
    norm.eval()
    with single_values_normalised(batch_normalisations(model)):
        model(torch.randn(4, 3))
    assert torch.equal(norm.running_mean, torch.zeros(3))
    assert not norm.training
