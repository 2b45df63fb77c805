"""A solver on several MPI ranks: streams `u` (points, 2) and `k` (points,) and the mesh, each rank its own points.

Usage: pieces.py worker|one offsets|indices STEPS POINTS [fail_at=STEP]; run by test_mpi_client.py under mpirun.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from penstock_client import Client, Field, Simulation


def field(a: float, step: int, points: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """What the ranks send together."""
    u = a + step + np.arange(2.0 * points).reshape(points, 2) / 1024
    return u, np.arange(points, dtype=np.int32) * (step + 1)


def part_of(rank: int, ranks: int, points: int, by_indices: bool) -> NDArray[np.int64]:
    """The points of one rank: a run, or scattered and in no order; the last of four or more ranks has none."""
    owners = ranks - 1 if ranks > 3 else ranks
    if rank >= owners:
        return np.empty(0, np.int64)
    if by_indices:
        return np.random.default_rng(1).permutation(points)[rank::owners]
    return np.arange(points * rank // owners, points * (rank + 1) // owners)


def serve(simulation: Simulation, by_indices: bool, steps: int, points: int, fail_at: int) -> None:
    comm = MPI.COMM_WORLD
    mine = part_of(comm.Get_rank(), comm.Get_size(), points, by_indices)
    simulation.announce(
        mine if by_indices else None,
        u=Field((points,), 2),
        k=Field((points,), dtype="int32"),
        cell_volumes=Field((points,), static=True),
    )
    offset = None if by_indices else int(mine[0]) if mine.size else 0
    simulation.send_static(offset, cell_volumes=1.0 + mine)
    for step in range(steps):
        if step == fail_at and comm.Get_rank() == 1:
            raise ArithmeticError("diverged on purpose")
        u, k = field(simulation.parameters["a"], step, points)
        comm.Barrier()  # as a solver's exchange of halos: nobody gets far when one is missing
        simulation.send(step, 0.5 * step, offset, u=u[mine], k=k[mine])


def main() -> None:
    way, partition, steps, points = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    fail_at = int(sys.argv[5].removeprefix("fail_at=")) if len(sys.argv) > 5 else -1
    with Client(comm=MPI.COMM_WORLD) as client:
        if way == "one":
            simulation = client.simulation()
            serve(simulation, partition == "indices", steps, points, fail_at)
            simulation.finish()
        else:
            for simulation in client.simulations():
                serve(simulation, partition == "indices", steps, points, fail_at)


if __name__ == "__main__":
    main()
