"""Simulations for the ranks of an MPI solver: rank 0 asks the server, and all ranks work on what it was given.

This module does not import MPI: it works with any communicator that has mpi4py's `Get_rank`, `Get_size`, `Bcast` and
`Abort`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np

from penstock_client.errors import ConnectError

_NONE_LEFT, _ASSIGNED, _FAILED = 0, 1, 2

S = TypeVar("S", bound="Assigned")


class Communicator(Protocol):
    """The methods of mpi4py's communicators that the client calls."""

    def Get_rank(self) -> int:  # noqa: N802
        """Return the rank of this process."""

    def Get_size(self) -> int:  # noqa: N802
        """Return the number of ranks."""

    def Bcast(self, buf: Any, root: int = 0) -> None:  # noqa: N802
        """Copy a buffer from `root` to all ranks."""

    def Abort(self, errorcode: int = 0) -> Any:  # noqa: N802
        """End all ranks."""


class Assigned(Protocol):
    """A simulation as `share` needs it.

    Attributes:
        id: simulation id.
        attempt: attempt number, starting at 1.
    """

    id: int
    attempt: int


def share(comm: Communicator, ask: Callable[[], S | None], join: Callable[[int, int], S | None]) -> S | None:
    """Get one simulation for all ranks. Collective: every rank calls it.

    Args:
        comm: all ranks of the solver.
        ask: asks the server for a simulation; called on rank 0.
        join: takes a simulation by id and attempt; called on the other ranks.

    Returns:
        The simulation, or None when the study has none left.

    Raises:
        ConnectError: rank 0 could not ask the server. Rank 0 itself raises the error that `ask` raised.
    """
    message = np.empty(3, np.int64)  # result of asking, id, attempt; a plain array avoids pickling between the ranks
    if comm.Get_rank() == 0:
        message[:] = _FAILED, 0, 0
        try:
            simulation = ask()
            message[:] = (_NONE_LEFT, 0, 0) if simulation is None else (_ASSIGNED, simulation.id, simulation.attempt)
        finally:
            comm.Bcast(message, root=0)
        return simulation
    comm.Bcast(message, root=0)
    outcome, number, attempt = message.tolist()
    if outcome == _FAILED:
        raise ConnectError("MPI rank 0 could not ask the server for a simulation; its own message says why")
    return join(number, attempt) if outcome == _ASSIGNED else None
