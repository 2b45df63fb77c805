"""The ranks of one MPI solver: one of them asks for a simulation, all serve it, and none outlives the failure of another.

Nothing here imports MPI: any communicator with mpi4py's `Get_rank`, `Get_size`, `Bcast` and `Abort` will do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np

from penstock_client.errors import ConnectError

_NONE_LEFT, _ASSIGNED, _FAILED = 0, 1, 2

S = TypeVar("S", bound="Assigned")


class Communicator(Protocol):
    """What is used of mpi4py's communicators."""

    def Get_rank(self) -> int: ...  # noqa: N802

    def Get_size(self) -> int: ...  # noqa: N802

    def Bcast(self, buf: Any, root: int = 0) -> None: ...  # noqa: N802

    def Abort(self, errorcode: int = 0) -> Any: ...  # noqa: N802


class Assigned(Protocol):
    """A simulation that a rank has been given."""

    id: int
    attempt: int


def share(comm: Communicator, ask: Callable[[], S | None], join: Callable[[int, int], S | None]) -> S | None:
    """Rank 0 asks the server for a simulation; the others join the one it was given, by id and attempt. Called by all ranks.

    Raises:
        ConnectError: rank 0 could not ask; what it raises says why.
    """
    told = np.empty(3, np.int64)  # what became of asking, id, attempt: no pickled object between the ranks
    if comm.Get_rank() == 0:
        told[:] = _FAILED, 0, 0
        try:
            simulation = ask()
            told[:] = (_NONE_LEFT, 0, 0) if simulation is None else (_ASSIGNED, simulation.id, simulation.attempt)
        finally:
            comm.Bcast(told, root=0)
        return simulation
    comm.Bcast(told, root=0)
    outcome, number, attempt = told.tolist()
    if outcome == _FAILED:
        raise ConnectError("MPI rank 0 could not ask the server for a simulation; its own message says why")
    return join(number, attempt) if outcome == _ASSIGNED else None
