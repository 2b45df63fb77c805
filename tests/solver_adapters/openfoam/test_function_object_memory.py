"""The function object under gcc's address and undefined-behaviour sanitizers, which also watch the libpenstock inside it.

OpenFOAM itself has no sanitizer: what it allocates is watched, what it does with it is not; its leaks are not counted.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cavity import CAVITY, STEPS, cavity_of, decomposed, solve

from live_server import live_server, worker
from penstock_solvers.openfoam.build import build

pytestmark = [pytest.mark.openfoam, pytest.mark.slow]

FLAGS = ("-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
FOUND = 99  # exit code of a solver in which a sanitizer has found something


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The function object's library with sanitizers."""
    return build(tmp_path_factory.mktemp("sanitized"), flags=FLAGS)


def watched(*command: str) -> list[str]:
    """Let the solver, the last program of a command, load the sanitizer first."""
    asked = ["gcc", "-print-file-name=libasan.so"]
    libasan = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    solver = command.index("icoFoam")
    options = f"detect_leaks=0:detect_stack_use_after_return=1:exitcode={FOUND}"
    variables = [f"LD_PRELOAD={libasan}", f"ASAN_OPTIONS={options}", "UBSAN_OPTIONS=print_stacktrace=1"]
    return [*command[:solver], "env", *variables, *command[solver:]]


@pytest.mark.parametrize("ranks", [1, 2])
def test_sanitizers_find_nothing_in_a_stream(
    tutorial: Callable[..., Path], tmp_path: Path, sanitized: Path, ranks: int
) -> None:
    case = cavity_of(tutorial, "(U p)", "sendInitial true;", library=sanitized)
    command = decomposed(case) if ranks > 1 else ["icoFoam"]
    with live_server(tmp_path / "run", CAVITY) as server, worker(server) as client:
        simulation = next(client.simulations())
        code, output = solve(server, simulation, case, *watched(*command))
        assert code == 0, output[-5000:]
        simulation.exited()
        assert server.report()["samples"]["unique"] == STEPS + 1


def test_sanitizers_find_nothing_in_a_refused_field(
    tutorial: Callable[..., Path], tmp_path: Path, sanitized: Path
) -> None:
    case = cavity_of(tutorial, "(U p)", library=sanitized)
    with live_server(tmp_path / "run", {"p": {}}) as server, worker(server) as client:
        code, output = solve(server, next(client.simulations()), case, *watched("icoFoam"))
    assert code == 1, output[-5000:]
    assert "penstock: field 'U': the study has p (refused: unknown_field)" in output
