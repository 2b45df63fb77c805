"""Memory of batches is used again once nothing refers to it, and never before."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.study import BatchMemory
from penstock_server.study.batch_memory import KEPT


def test_memory_is_used_again_once_the_last_tensor_of_it_has_gone() -> None:
    memory = BatchMemory()
    tensor = memory.tensor((64, 10))
    first = tensor.data_ptr()
    part = tensor[3:].view(-1, 5).numpy()[1:]
    del tensor
    assert memory.tensor((64, 10)).data_ptr() != first
    del part
    assert first in [memory.tensor((64, 10)).data_ptr() for _ in range(KEPT)]


def test_a_loss_that_waits_for_its_backward_pass_keeps_its_targets() -> None:
    memory = BatchMemory()
    prediction = torch.zeros(4, 8, requires_grad=True)
    loss = torch.nn.functional.mse_loss(prediction, memory.tensor((4, 8)).fill_(3.0))
    memory.tensor((4, 8)).fill_(99.0)
    loss.backward()
    assert prediction.grad is not None
    torch.testing.assert_close(prediction.grad, torch.full((4, 8), -6.0 / 32))


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 5), st.booleans()), max_size=40))
def test_tensors_in_use_never_share_memory(calls: list[tuple[int, int, bool]]) -> None:
    memory, used = BatchMemory(), []
    for number, (rows, width, kept) in enumerate(calls):
        tensor = memory.tensor((rows, width))
        assert tensor.shape == (rows, width)
        assert tensor.dtype == torch.float32
        tensor[:] = number
        if kept:
            used.append((number, tensor))
        elif used:
            del used[0]
        del tensor
        assert all((other == value).all() for value, other in used)
    assert len(memory._kept) <= KEPT
