"""What the trainer ranks of one study do together: add up votes, average gradients, gather what each has measured.

torch.distributed: gloo between CPUs, also for the few numbers of votes; nccl for the gradients where ranks have a GPU each. All ranks
call the same methods in the same order; each call waits for the others. A rank that leaves, or dies, makes the others' calls raise
PeersLost.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from penstock_client.errors import PenstockError
from penstock_server.network import interface_of

# A frozen rank is noticed by whoever asks it how it stands, not here: others may wait long for one that validates.
PATIENCE = timedelta(days=1)
Floats = NDArray[np.float64]
_Store: Any = dist.TCPStore  # type: ignore[attr-defined]  # its stub lacks most of its parameters


class PeersLost(PenstockError):
    """Another trainer rank has left or died while this one waited for it."""


class MeetingPoint:
    """Where the ranks find each other: kept by rank 0, for as long as the group lives.

    host: an address of this machine that the other ranks reach.
    """

    def __init__(self, host: str, ranks: int) -> None:
        # Left to itself, the store would listen on every address of the machine.
        with socket.create_server((host, 0), backlog=ranks) as listening:
            self.address: tuple[str, int] = listening.getsockname()
            self._store = _Store(
                *self.address, ranks, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach()
            )

    @property
    def store(self) -> Any:
        return self._store


class RankGroup:
    """All trainer ranks; alone, where there is one: then nothing is sent anywhere."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self._joined = False

    @property
    def alone(self) -> bool:
        return self.size == 1

    def join(self, meeting: MeetingPoint | tuple[str, int], host: str) -> None:
        """Wait until all ranks are there.

        Args:
            meeting: on rank 0 the meeting point itself, elsewhere its address. host: this rank's address, by which others reach it.
        """
        if self.alone or self._joined:
            return
        for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(variable, interface_of(host))
        store = (
            meeting.store
            if isinstance(meeting, MeetingPoint)
            else _Store(*meeting, self.size, is_master=False, wait_for_workers=False)
        )
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        with _peers():
            dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.size, timeout=PATIENCE)
        self._joined = True

    def leave(self) -> None:
        """Go, whatever the others do. May be called again."""
        if self._joined:
            self._joined = False
            dist.destroy_process_group()

    def sum(self, values: Iterable[float]) -> Floats:
        """The sum over all ranks of a row of numbers, the same on each."""
        row = torch.tensor(list(values), dtype=torch.float64)
        if not self.alone:
            with _peers():
                dist.all_reduce(row)
        return row.numpy()

    def gather(self, rows: Floats) -> list[Floats]:
        """What every rank has brought, in their order: rows (n, columns), whose n may differ."""
        if self.alone:
            return [rows]
        return [of_rank.numpy() for of_rank in self._gather_rows(torch.from_numpy(rows))]

    def gather_text(self, text: str) -> list[str]:
        """What every rank says, in their order."""
        if self.alone:
            return [text]
        rows = torch.tensor(list(text.encode()), dtype=torch.uint8).reshape(-1, 1)
        return [of_rank.numpy().tobytes().decode() for of_rank in self._gather_rows(rows)]

    def average(self, parameters: list[nn.Parameter], samples: int) -> None:
        """Make the gradients of all ranks equal, in place: their mean, weighted by each rank's number of samples (0: none of its own)."""
        if self.alone:
            return
        gradients = [_real(p.grad) for p in parameters if p.grad is not None]
        for dtype in dict.fromkeys(g.dtype for g in gradients):
            of_dtype = [g for g in gradients if g.dtype is dtype]
            flat = torch.cat([g.reshape(-1) for g in of_dtype])
            # The number of samples travels along: one message instead of two.
            message = torch.cat([flat * samples, flat.new_tensor([samples])])
            with _peers():
                dist.all_reduce(message)
            mean = message[:-1] / message[-1].clamp(min=1)
            sizes = [g.numel() for g in of_dtype]
            for gradient, of_gradient in zip(of_dtype, torch.split(mean, sizes), strict=True):
                gradient.copy_(of_gradient.view_as(gradient))

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Give every rank rank 0's values of these, in place."""
        if not self.alone:
            for tensor in tensors:
                with _peers():
                    dist.broadcast(_real(tensor.detach()), 0)

    def _gather_rows(self, rows: Tensor) -> list[Tensor]:
        """The rows of all ranks, in their order: (n, columns), whose n may differ."""
        numbers = [int(n) for n in self._gather(torch.tensor([len(rows)]))]
        padded = rows.new_zeros((max(numbers), rows.shape[1]))
        padded[: len(rows)] = rows
        of_ranks = self._gather(padded) if max(numbers) else [padded] * self.size
        return [of_rank[:number] for of_rank, number in zip(of_ranks, numbers, strict=True)]

    def _gather(self, row: Tensor) -> list[Tensor]:
        everybody = [torch.empty_like(row) for _ in range(self.size)]
        with _peers():
            dist.all_gather(everybody, row)
        return everybody


ALONE = RankGroup()


@contextmanager
def _peers() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # torch.distributed has no narrower one for a connection that broke
        first_line = str(error).partition("\n")[0]
        raise PeersLost(f"another trainer rank has gone: {first_line}") from error


def _real(tensor: Tensor) -> Tensor:
    """Complex numbers as pairs of real ones; a view."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor
