"""The targets of a batch are normalised in one pass, with the numbers of the affine map."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from penstock_server.training.batch_targets import FEW_THREADS, BatchTargets
from penstock_server.training.normalisation import Affine

WIDTH = 7


def _affine() -> Affine:
    torch.manual_seed(1)
    return Affine(torch.zeros(2), torch.ones(2), torch.randn(WIDTH) * 100, torch.rand(WIDTH) + 0.1, torch.ones(WIDTH))


@pytest.mark.parametrize("threads", [1, FEW_THREADS + 1])
@pytest.mark.parametrize("raw", [torch.randn(5, 1, WIDTH), torch.randn(4, 3, WIDTH), torch.randn(3, 2 * WIDTH)])
def test_the_numbers_are_those_of_the_map(raw: Tensor, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        torch.testing.assert_close(BatchTargets(True)(_affine(), raw), _affine().targets(raw), rtol=0, atol=0)
    finally:
        torch.set_num_threads(before)


def test_the_batch_keeps_its_raw_values() -> None:
    raw = torch.randn(5, 1, WIDTH)
    copy = raw.clone()
    BatchTargets(True)(_affine(), raw)
    assert torch.equal(raw, copy)


def test_targets_that_are_not_normalised_are_given_back() -> None:
    raw = torch.randn(5, 1, WIDTH)
    assert BatchTargets(False)(_affine(), raw) is raw
