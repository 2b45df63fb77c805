"""What the trainer ranks of one study do together: add up votes, average gradients, gather measurements.

Votes and other short rows of numbers go over connections of the ranks' own (`exchange`), gradients through memory or
torch.distributed (`gradients`), the rest through torch.distributed. All ranks call the same methods in the same order;
each call waits for the others. When a rank leaves or dies, the calls of the others raise PeersLost.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from penstock_client.errors import PenstockError
from penstock_server.network import interface_of
from penstock_server.training.exchange import Exchange, Floats
from penstock_server.training.gradients import GradientMean

# In effect infinite, for the others may wait long for a rank that validates. The engine's status poll detects ranks that
# hang, and ranks that all wait for the others.
PATIENCE = timedelta(days=1)
_PLACE = re.compile(r"^\[[^\]]*:\d+\] ")  # in gloo's sources, before its messages
_Store: Any = dist.TCPStore  # type: ignore[attr-defined]  # its stub lacks most of its parameters


class PeersLost(PenstockError):
    """Another trainer rank left or died while this one waited for it."""


class MeetingPoint:
    """Where the ranks find each other; rank 0 keeps it as long as the group lives.

    Args:
        host: address of this machine that the other ranks reach.
        ranks: number of ranks.

    Attributes:
        address: host and port to give to the other ranks.
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
        """The torch.distributed store of the group."""
        return self._store


class RankGroup:
    """All trainer ranks of a study. With one rank nothing is sent.

    Args:
        rank: number of this rank, from 0.
        size: number of ranks.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self._joined = False
        self._exchange: Exchange | None = None
        self._means: dict[torch.dtype, GradientMean] = {}
        self._waiting_since: float | None = None  # by time.monotonic()

    @property
    def alone(self) -> bool:
        """Whether there is one rank only."""
        return self.size == 1

    @property
    def waiting_seconds(self) -> float:
        """How long the call under way has waited for the other ranks; 0 where none is. Any thread may ask."""
        since = self._waiting_since
        return 0.0 if since is None else time.monotonic() - since

    def join(self, meeting: MeetingPoint | tuple[str, int], host: str) -> None:
        """Wait until all ranks are there.

        Args:
            meeting: on rank 0 the meeting point itself, on the others its address.
            host: address by which the other ranks reach this one.

        Raises:
            PeersLost: when another rank left or died meanwhile.
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
        with self.together():
            dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.size, timeout=PATIENCE)
            self._joined = True
            self._exchange = Exchange(self.rank, self.size, store, host)

    def leave(self) -> None:
        """Leave the group, whatever the others do. May be called again."""
        if self._joined:
            self._joined = False
            self._means.clear()
            if self._exchange is not None:
                self._exchange.close()
            dist.destroy_process_group()

    def sum(self, values: Iterable[float]) -> Floats:
        """Add up a row of numbers over all ranks.

        Args:
            values: as many numbers on each rank.

        Returns:
            The sums, float64, the same on each rank.

        Raises:
            PeersLost: when another rank left or died.
        """
        total: Floats = self.rows(values).sum(axis=0)
        return total

    def rows(self, values: Iterable[float]) -> Floats:
        """Collect a short row of numbers from each rank.

        Args:
            values: as many numbers on each rank.

        Returns:
            The rows in the order of ranks, shape (ranks, n), float64.

        Raises:
            PeersLost: when another rank left or died.
        """
        row = np.array(list(values), np.float64)
        if self._exchange is None:
            return row[None]
        with self.together():
            return self._exchange.rows(row)

    def gather(self, rows: Floats) -> list[Floats]:
        """Collect rows of numbers from all ranks.

        Args:
            rows: shape (n, columns), float64; n may differ between ranks.

        Returns:
            The rows of each rank, in the order of ranks.

        Raises:
            PeersLost: when another rank left or died.
        """
        if self.alone:
            return [rows]
        return [of_rank.numpy() for of_rank in self._gather_rows(torch.from_numpy(rows))]

    def gather_text(self, text: str) -> list[str]:
        """Collect a text from every rank.

        Args:
            text: of this rank; sent as UTF-8 bytes, as all_gather_object would unpickle what it receives.

        Returns:
            The texts, in the order of ranks.

        Raises:
            PeersLost: when another rank left or died.
        """
        if self.alone:
            return [text]
        rows = torch.tensor(list(text.encode()), dtype=torch.uint8).reshape(-1, 1)
        return [of_rank.numpy().tobytes().decode() for of_rank in self._gather_rows(rows)]

    def average(self, parameters: list[nn.Parameter], samples: int) -> None:
        """Replace the gradients of all ranks by their mean weighted by each rank's number of samples.

        torch's DistributedDataParallel is not used because it weights all ranks equally. Here a rank may have a smaller
        batch, or none, in any step. With `Join`, DDP supports ranks that have run out of samples for good, not ranks
        that lack a batch now and have one later; and it divides by the number of ranks instead of samples.

        Args:
            parameters: the model's; those without gradient are left out, which must be the same ones on all ranks.
            samples: number of samples in this rank's batch; 0 where it has none.

        Raises:
            PeersLost: when another rank left or died.
        """
        if self.alone:
            return
        with_gradient = [p for p in parameters if p.grad is not None]
        for dtype in dict.fromkeys(p.dtype for p in with_gradient):
            of_dtype = [p for p in with_gradient if p.dtype is dtype]
            mean = self._means.get(dtype)
            if mean is None or not mean.fits(of_dtype):
                mean = self._means[dtype] = GradientMean(self, of_dtype)
            mean.replace(of_dtype, samples)

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Copy rank 0's values to every rank, in place.

        Args:
            tensors: of equal shapes on all ranks.

        Raises:
            PeersLost: when another rank left or died.
        """
        if not self.alone:
            for tensor in tensors:
                with self.together():
                    dist.broadcast(_real(tensor.detach()), 0)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Note that this rank waits for the others meanwhile.

        Raises:
            PeersLost: for a connection that has broken.
        """
        self._waiting_since = time.monotonic()
        try:
            yield
        except (RuntimeError, OSError) as error:  # torch.distributed has no narrower class for a broken connection
            what = _PLACE.sub("", str(error).partition("\n")[0]).partition(". ")[0]  # without gloo's advice
            raise PeersLost(f"another trainer rank has gone: {what}") from error
        finally:
            self._waiting_since = None

    def _gather_rows(self, rows: Tensor) -> list[Tensor]:
        """Collect rows (n, columns) of all ranks, in their order; n may differ."""
        numbers = [int(n) for n in self._gather(torch.tensor([len(rows)]))]
        padded = rows.new_zeros((max(numbers), rows.shape[1]))
        padded[: len(rows)] = rows
        of_ranks = self._gather(padded) if max(numbers) else [padded] * self.size
        return [of_rank[:number] for of_rank, number in zip(of_ranks, numbers, strict=True)]

    def _gather(self, row: Tensor) -> list[Tensor]:
        everybody = [torch.empty_like(row) for _ in range(self.size)]
        with self.together():
            dist.all_gather(everybody, row)
        return everybody


ALONE = RankGroup()


def _real(tensor: Tensor) -> Tensor:
    """Return a view of complex numbers as pairs of real ones; real tensors as they are."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor
