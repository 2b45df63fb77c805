"""The Python client on several MPI ranks, which send to the real server: each part reaches its place, no rank outlives another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from live_server import LiveServer, worker
from mpi import environment, mpirun, recorded, recorder, require
from penstock_client import Client, Field, FieldError
from penstock_client.communicator import share
from penstock_client.errors import ConnectError
from waiting import PATIENCE

SOLVER = Path(__file__).parent / "mpi" / "pieces.py"
FIELDS = {"u": {"components": 2}, "k": {}}
STEPS, POINTS = 5, 17

pytestmark = pytest.mark.slow


def run(server: LiveServer, ranks: int, *arguments: object, simulation: Any = None) -> subprocess.CompletedProcess[str]:
    require("mpirun")
    return subprocess.run(
        mpirun(ranks, sys.executable, SOLVER, *map(str, arguments)),
        env=environment(server.environment(simulation)),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def check(server: LiveServer, simulation: int) -> None:
    """Every value of every time step is in its place."""
    a, times, values = recorded(server, simulation)
    assert times.tolist() == [0.5 * step for step in range(STEPS)]
    for step in range(STEPS):
        u = a + step + np.arange(2.0 * POINTS) / 1024
        np.testing.assert_array_equal(values[step, : 2 * POINTS], u.astype(np.float32))
        np.testing.assert_array_equal(values[step, 2 * POINTS :], np.arange(POINTS) * (step + 1))


def test_ranks_with_index_lists_serve_simulation_after_simulation(tmp_path: Path) -> None:
    with recorder(tmp_path / "run", FIELDS, simulations=3) as server:
        done = run(server, 3, "worker", "indices", STEPS, POINTS)
        assert done.returncode == 0, done.stdout + done.stderr
        report = server.report()
    assert (report["status"], report["time_steps"], report["duplicates_dropped"]) == ("finished", 3 * STEPS, 0)
    for simulation in range(3):
        check(server, simulation)
    with h5py.File(tmp_path / "run" / "recording.h5") as file:
        np.testing.assert_array_equal(file["mesh/cell_volumes"], 1.0 + np.arange(POINTS)[:, None])


def test_ranks_with_offsets_serve_the_one_simulation_they_were_started_for(tmp_path: Path) -> None:
    """The fourth of four ranks holds no points."""
    with recorder(tmp_path / "run", FIELDS) as server, worker(server) as client:
        simulation = next(client.simulations())
        done = run(server, 4, "one", "offsets", STEPS, POINTS, simulation=simulation)
        assert done.returncode == 0, done.stdout + done.stderr
        simulation.exited()
        assert server.report()["time_steps"] == STEPS
    check(server, 0)


def test_the_failure_of_one_rank_ends_the_attempt_on_all(tmp_path: Path) -> None:
    with recorder(tmp_path / "run", FIELDS, retries=1) as server:
        done = run(server, 3, "worker", "indices", STEPS, POINTS, "fail_at=2")
        assert done.returncode != 0
        assert "ArithmeticError: diverged on purpose" in done.stderr
        assert "MPI rank 1: ArithmeticError: diverged on purpose" in (tmp_path / "run" / "events.jsonl").read_text()
        done = run(server, 2, "worker", "offsets", STEPS, POINTS)  # another number of ranks tries again
        assert done.returncode == 0, done.stdout + done.stderr
        report = server.report()
    assert report["time_steps"] == STEPS
    check(server, 0)


class OneOf:
    """A communicator of which the other ranks are played by the test: what rank 0 broadcasts is kept or given."""

    def __init__(self, rank: int, told: list[int] | None = None) -> None:
        self.rank, self.told = rank, told

    def Get_rank(self) -> int:  # noqa: N802
        return self.rank

    def Get_size(self) -> int:  # noqa: N802
        return 2

    def Bcast(self, buf: Any, root: int = 0) -> None:  # noqa: N802
        if self.rank == root:
            self.told = buf.tolist()
        else:
            buf[:] = self.told

    def Abort(self, errorcode: int = 0) -> None:  # noqa: N802
        raise AssertionError("nobody should be ended")


def test_the_other_ranks_hear_that_rank_0_could_not_ask() -> None:
    def ask() -> None:
        raise ValueError("no server")

    first = OneOf(0)
    with pytest.raises(ValueError, match="no server"):
        share(first, ask, lambda _id, _attempt: None)
    with pytest.raises(ConnectError, match="MPI rank 0 could not ask"):
        share(OneOf(1, first.told), lambda: None, lambda _id, _attempt: None)


def test_all_ranks_hear_that_there_is_nothing_left() -> None:
    first = OneOf(0)
    assert share(first, lambda: None, lambda _id, _attempt: None) is None
    assert share(OneOf(1, first.told), lambda: None, lambda _id, _attempt: None) is None


@pytest.mark.parametrize(
    ("indices", "offset", "array", "text"),
    [
        (None, 5, np.zeros((3, 2)), "3 points from offset 5, the whole field has 7"),
        (None, -1, np.zeros((3, 2)), "3 points from offset -1"),
        (None, 0, np.zeros(6), "expected 2 components as its last dimension"),
        (None, None, np.zeros((3, 2)), "say with offset= or announce(indices=...) which part this is"),
        ([4, 2], None, np.zeros((3, 2)), "3 points, announced were the indices of 2"),
        ([4, 2], 0, np.zeros((2, 2)), "the indices that were announced say already"),
        ([4, 7], None, np.zeros((2, 2)), "indices contain 7: field 'u' has the points 0 to 6"),
        ([4, -1], None, np.zeros((2, 2)), "indices contain -1"),
        ([4.0, 1.0], None, np.zeros((2, 2)), "expected a list of whole numbers"),
        ([[4, 1]], None, np.zeros((2, 2)), "expected a list of whole numbers"),
    ],
)
def test_a_part_that_does_not_fit_is_told_before_anything_is_sent(
    tmp_path: Path, indices: Any, offset: int | None, array: Any, text: str
) -> None:
    with recorder(tmp_path / "run", {"u": {"components": 2}}) as server, Client(server.connect) as client:
        simulation = client.next_simulation()
        assert simulation is not None
        with pytest.raises(FieldError) as caught:
            simulation.announce(indices, u=Field((7,), 2))
            simulation.send(0, 0.0, offset, u=array)
        assert text in str(caught.value)


def test_an_offset_needs_the_whole_fields_shape(tmp_path: Path) -> None:
    with recorder(tmp_path / "run", {"u": {}}) as server, Client(server.connect) as client:
        simulation = client.next_simulation()
        assert simulation is not None
        with pytest.raises(FieldError, match="call announce"):
            simulation.send(0, offset=3, u=np.zeros(2))
