"""The function object ends the solver when something is wrong, and the server notices a solver that dies."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cavity import CAVITY, cavity_of, icofoam, solve

from live_server import LiveServer, live_server, worker
from penstock_client.simulation import Simulation
from waiting import busy

pytestmark = pytest.mark.openfoam


def test_no_server_is_named(tutorial: Callable[..., Path]) -> None:
    code, output, _ = icofoam(cavity_of(tutorial))
    assert code == 1
    assert "--> FOAM FATAL ERROR: penstock: no server given: set PENSTOCK_CONNECT to the connect.json" in output


def test_the_server_is_not_there(tutorial: Callable[..., Path], tmp_path: Path) -> None:
    with live_server(tmp_path / "run", CAVITY) as server:
        connect = tmp_path / "connect.json"
        shutil.copy(server.connect, connect)
    code, output, seconds = icofoam(cavity_of(tutorial, "(U p)", f'connect "{connect}";'))
    assert code == 1
    assert "FOAM FATAL ERROR: penstock: no answer from the server at tcp://127.0.0.1:" in output
    assert "within 1 s: is the study running" in output
    assert seconds < 20


def test_a_field_that_does_not_exist(tutorial: Callable[..., Path], tmp_path: Path) -> None:
    with live_server(tmp_path / "run", CAVITY) as server, worker(server) as client:
        simulation = next(client.simulations())
        code, output = solve(server, simulation, cavity_of(tutorial, "(U T)"), "icoFoam")
    assert code == 1
    assert "penstock: field T does not exist" in output
    assert re.search(r"this solver has\s+\(U p\) in the mesh region0: correct 'fields' in the\s+entry penstock", output)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ("", "penstock: no 'fields' in the entry penstock of controlDict"),
        ("()", "penstock: no fields in the entry penstock of controlDict: name those to stream"),
        ("(p); cellOrder random", "penstock: cellOrder random in the entry penstock of controlDict: undecomposed or"),
        ("(p); sendLast true; timeEnd 1", "penstock: sendLast in the entry penstock of controlDict works neither"),
        ("(p); executeControl writeTime", "penstock: executeControl writeTime needs writeControl none; beside it"),
    ],
)
def test_an_entry_that_is_wrong(tutorial: Callable[..., Path], fields: str, problem: str) -> None:
    code, output, _ = icofoam(cavity_of(tutorial, fields))
    assert code == 1
    assert "FOAM FATAL ERROR" in output
    assert problem in output


def test_an_interval_longer_than_the_run(tutorial: Callable[..., Path], tmp_path: Path) -> None:
    with live_server(tmp_path / "run", CAVITY) as server, worker(server) as client:
        simulation = next(client.simulations())
        case = cavity_of(tutorial, "(U p)", "executeInterval 1000;")
        code, output = solve(server, simulation, case, "icoFoam")
    assert code == 1
    assert (
        "the run has ended before any time step was sent: executeInterval (or timeStart) in the entry penstock"
        in output
    )


def test_a_field_that_the_study_does_not_have(tutorial: Callable[..., Path], tmp_path: Path) -> None:
    with live_server(tmp_path / "run", {"p": {}}) as server, worker(server) as client:
        simulation = next(client.simulations())
        code, output = solve(server, simulation, cavity_of(tutorial), "icoFoam")
    assert code == 1
    assert "FOAM FATAL ERROR" in output
    assert "penstock: field 'U': the study has p (refused: unknown_field)" in output


def test_an_error_before_the_first_time_step_is_fatal_too(tutorial: Callable[..., Path]) -> None:
    """OpenFOAM turns an error in a function object's constructor into a warning and goes on without it."""
    code, output, _ = icofoam(cavity_of(tutorial, "(U p)", "sendInitial true;"))
    assert code == 1
    assert "FOAM FATAL ERROR: penstock: no server given" in output


@contextmanager
def endless_cavity(
    tutorial: Callable[..., Path], server: LiveServer, simulation: Simulation
) -> Iterator[subprocess.Popen[str]]:
    """Start icoFoam with minutes of work; yields its process when the server has received three time steps."""
    case = tutorial("incompressible/icoFoam/cavity/cavity", "(U p)", end_time="1000")
    with (case / "log").open("w+") as log, server.start(["icoFoam"], simulation, cwd=case, stdout=log) as process:
        while server.engine.status().received < 3:
            assert process.poll() is None, (case / "log").read_text()[-2000:]
            time.sleep(0.01)
        yield process
        process.wait(timeout=30)


def test_a_server_that_stops_ends_the_solver(tutorial: Callable[..., Path], tmp_path: Path) -> None:
    with live_server(tmp_path / "run", CAVITY) as server, worker(server) as client:
        simulation = next(client.simulations())
        with endless_cavity(tutorial, server, simulation) as process:
            begun = time.monotonic()
            server.engine.stop("the test says so")
        assert process.returncode == 1
        assert time.monotonic() - begun < 15 * busy()
        said = (tmp_path / "case" / "log").read_text()
        assert "FOAM FATAL ERROR" in said
        assert re.search(r"penstock: .*(lost the connection|no longer wants simulation 0|study is stopping)", said)


def test_a_solver_that_dies_does_not_finish_its_stream(tutorial: Callable[..., Path], tmp_path: Path) -> None:
    with live_server(tmp_path / "run", CAVITY) as server, worker(server) as client:
        simulation = next(client.simulations())
        with endless_cavity(tutorial, server, simulation) as process:
            process.kill()
        simulation.fail("the solver died")
        report = server.report()
    assert report["simulations"]["finished"] == 0
    assert report["simulations"]["failed"] == 1
    assert report["samples"]["unique"] >= 3


def test_an_entry_that_is_removed_while_the_solver_runs(tutorial: Callable[..., Path], tmp_path: Path) -> None:
    control = tmp_path / "case" / "system" / "controlDict"
    with live_server(tmp_path / "run", CAVITY) as server, worker(server) as client:
        simulation = next(client.simulations())
        with endless_cavity(tutorial, server, simulation) as process:
            without = control.with_name("later")
            without.write_text(control.read_text().partition("functions\n{")[0])
            tomorrow = time.time() + 86400  # OpenFOAM ignores a file that is only a few seconds newer
            os.utime(without, (tomorrow, tomorrow))
            without.replace(control)
        assert process.returncode == 1
        said = " ".join((tmp_path / "case" / "log").read_text().split())
        simulation.fail("the entry was removed")
    assert "FOAM FATAL ERROR: penstock: the stream ends at time" in said
    assert "before the run does: the entry penstock of controlDict was removed, disabled" in said
