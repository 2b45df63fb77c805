"""The mean gradient of all trainer ranks.

Ranks on one machine write their gradients into memory that all of them have mapped, and each adds them up for itself.
Elsewhere torch.distributed sums them: gloo between CPUs, nccl between GPUs.
"""

from __future__ import annotations

import json
import mmap
import os
import secrets
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from penstock_client.shared_memory import boot_id
from penstock_server.training.exchange import Floats

_PIECE = 65_536  # numbers that are added up at a time; they stay in the processor's cache
_TOKEN_BYTES = 64  # before the rows, which are aligned so


class Ranks(Protocol):
    """The methods of `RankGroup` that are used here."""

    rank: int
    size: int

    def rows(self, values: Iterable[float]) -> Floats:
        """Collect a row of numbers from each rank."""

    def gather_text(self, text: str) -> list[str]:
        """Collect a text from every rank."""

    def together(self) -> AbstractContextManager[None]:
        """Turn errors of torch.distributed into PeersLost."""


class GradientMean:
    """Averages gradients of one dtype. Its memory is made once, for parameters of these shapes.

    Args:
        ranks: the group.
        parameters: as many on each rank, of the same shapes; all have a gradient.
    """

    def __init__(self, ranks: Ranks, parameters: list[nn.Parameter]) -> None:
        self._ranks = ranks
        gradients = [_gradient(p) for p in parameters]
        first, number = gradients[0], sum(g.numel() for g in gradients)
        self._mean = first.new_empty(number)
        self._shapes = [g.shape for g in gradients]
        on_cpu = first.device.type == "cpu"
        size = number * first.element_size()
        memory = common_memory(ranks, ranks.size * size) if on_cpu else None
        self._rows = [
            torch.frombuffer(memory, dtype=first.dtype, count=number, offset=_TOKEN_BYTES + rank * size)
            for rank in range(ranks.size if memory is not None else 0)
        ]
        self._own = self._views(self._rows[ranks.rank] if self._rows else self._mean)
        self._pieces = list(zip(*(torch.split(row, _PIECE) for row in (self._mean, *self._rows)), strict=True))

    def fits(self, parameters: list[nn.Parameter]) -> bool:
        """Return whether parameters have the shapes that this was made for."""
        return self._shapes == [_gradient(p).shape for p in parameters]

    def replace(self, parameters: list[nn.Parameter], samples: int) -> None:
        """Replace the gradients by their mean, weighted by each rank's number of samples.

        Args:
            parameters: those that this was made for.
            samples: of this rank.

        Raises:
            PeersLost: when another rank left or died.
        """
        for own, parameter in zip(self._own, parameters, strict=True):
            own.copy_(_gradient(parameter))
        counts = self._ranks.rows([samples])[:, 0]  # all gradients are written
        weights = (counts / max(1.0, counts.sum())).tolist()
        if self._rows:
            for mean, first, *others in self._pieces:
                torch.mul(first, weights[0], out=mean)
                for other, weight in zip(others, weights[1:], strict=True):
                    mean.add_(other, alpha=weight)
            self._ranks.rows([0.0])  # all gradients are read
        else:
            self._mean.mul_(weights[self._ranks.rank])
            with self._ranks.together():
                dist.all_reduce(self._mean)
        for mean, parameter in zip(self._views(self._mean), parameters, strict=True):
            parameter.grad = torch.view_as_complex(mean) if parameter.is_complex() else mean

    def _views(self, flat: Tensor) -> list[Tensor]:
        parts = torch.split(flat, [shape.numel() for shape in self._shapes])
        return [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]


def common_memory(ranks: Ranks, size: int) -> mmap.mmap | None:
    """Map memory that all ranks write to, so many bytes after the first 64.

    It has no name: it is rank 0's (memfd_create(2)), and gone when the last rank has ended, however it ends.

    Args:
        ranks: the group; all call this together.
        size: bytes.

    Returns:
        The memory; None on all ranks where one of them cannot map it, as on another machine.

    Raises:
        PeersLost: when another rank left or died.
    """
    descriptor, offer = -1, ""
    if ranks.rank == 0:
        with suppress(OSError):
            descriptor = os.memfd_create("penstock-gradients")
            os.truncate(descriptor, _TOKEN_BYTES + size)
            token = secrets.token_bytes(_TOKEN_BYTES)
            os.pwrite(descriptor, token, 0)
            offer = json.dumps([boot_id().hex(), os.getpid(), descriptor, token.hex()])
    try:
        memory = _map(ranks.gather_text(offer)[0], _TOKEN_BYTES + size)
        everybody = bool(ranks.rows([memory is not None]).all())
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return memory if everybody else None


def _map(offer: str, size: int) -> mmap.mmap | None:
    """Map rank 0's memory; None where it is not on this machine, or process ids mean something else there."""
    if not offer:
        return None
    boot, process, number, token = json.loads(offer)
    if boot != boot_id().hex():
        return None
    with suppress(OSError, ValueError):
        descriptor = os.open(f"/proc/{process}/fd/{number}", os.O_RDWR | os.O_CLOEXEC)
        try:
            if os.pread(descriptor, _TOKEN_BYTES, 0) == bytes.fromhex(token):
                return mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
    return None


def _gradient(parameter: nn.Parameter) -> Tensor:
    """Return a parameter's gradient; complex numbers as pairs of real ones."""
    gradient = parameter.grad
    assert gradient is not None
    return torch.view_as_real(gradient) if gradient.is_complex() else gradient
