"""A rank that fails ends all ranks of a parallel solver, with its reason on the screen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cavity import CAVITY, cavity_of, decomposed, solve

from live_server import live_server, worker

pytestmark = pytest.mark.openfoam


@pytest.mark.parametrize("initial", ["false", "true"])
@pytest.mark.parametrize(("ranks", "bad"), [(2, 0), (2, 1), (4, 2)])
def test_a_rank_without_server_ends_all(
    tutorial: Callable[..., Path], tmp_path: Path, ranks: int, bad: int, initial: str
) -> None:
    """With sendInitial, one rank used to go on into the solver while the others waited for it in the stream."""
    case = cavity_of(tutorial, "(U p)", f"sendInitial {initial};")
    *launch, solver, parallel = decomposed(case, ranks)
    break_one = f'[ "$OMPI_COMM_WORLD_RANK" != {bad} ] || export PENSTOCK_CONNECT=/nowhere.json; exec "$@"'
    with live_server(tmp_path / "run", CAVITY) as server, worker(server) as client:
        simulation = next(client.simulations())
        code, output = solve(server, simulation, case, *launch, "sh", "-c", break_one, "sh", solver, parallel)
    assert code != 0
    assert f"[{bad}] penstock: " in output
    assert "/nowhere.json" in output
    assert "MPI_ERR_TRUNCATE" not in output
