"""The function object penstockStream inside real OpenFOAM solvers, streaming to the real server."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from live_server import LiveServer, live_server, worker
from penstock_client.simulation import Simulation
from penstock_solvers.openfoam.build import LIBRARY, OpenFOAMBuildError, build, library_path
from penstock_solvers.openfoam.environment import openfoam_environment
from waiting import PATIENCE, busy

pytestmark = pytest.mark.openfoam

TUTORIALS = Path("/usr/share/doc/openfoam-examples/examples")
CELLS = 400  # of both cavity tutorials
CAVITY = {"U": {"components": 3}, "p": {}}
STEPS = 20
MPI = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1"}


@pytest.fixture(scope="session")
def library() -> Path:
    """Built from the sources as they are now; the headers are fetched where they are not yet in the cache."""
    return build()


def foam(case: Path, *command: str) -> None:
    done = subprocess.run(
        command, cwd=case, env=openfoam_environment() | MPI, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.fixture
def tutorial(tmp_path: Path, library: Path) -> Callable[..., Path]:
    """Copies a tutorial, meshes it and adds an entry for the function object; nothing else is changed but the end time."""

    def make(
        name: str, fields: str, *entries: str, before: str = "", end_time: str | None = None, library: Path = library
    ) -> Path:
        case = tmp_path / "case"
        shutil.copytree(TUTORIALS / name, case)
        for packed in case.rglob("*.gz"):
            packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
            packed.unlink()
        control = case / "system" / "controlDict"
        text = control.read_text()
        if end_time is not None:
            text = re.sub(r"^endTime .*$", f"endTime {end_time};", text, flags=re.M)
        entry = [
            "type    penstockStream;",
            f'libs    ("{library}");',
            *([f"fields  {fields};"] if fields else []),
            *entries,
        ]
        text += "\nfunctions\n{\n" + before + "penstock\n{\n    " + "\n    ".join(entry) + "\n}\n}\n"
        control.write_text(text)
        foam(case, "blockMesh")
        return case

    return make


def cavity_of(tutorial: Callable[..., Path], fields: str = "(U p)", *entries: str, **options: Any) -> Path:
    """The icoFoam cavity, ended after STEPS time steps of 0.005 s; writes them all in full precision."""
    case = tutorial("incompressible/icoFoam/cavity/cavity", fields, *entries, end_time=str(0.005 * STEPS), **options)
    control = case / "system" / "controlDict"
    text = re.sub(r"^writeInterval .*$", "writeInterval 1;", control.read_text(), flags=re.M)
    control.write_text(re.sub(r"^writePrecision .*$", "writePrecision 12;", text, flags=re.M))
    return case


def solve(server: LiveServer, simulation: Simulation, case: Path, *command: str) -> tuple[int, str]:
    process = server.start(command, simulation, cwd=case)
    output = process.communicate(timeout=PATIENCE)[0]
    return process.returncode, output


def internal_field(path: Path, components: int) -> Any:
    """Cell values of a field file that OpenFOAM has written in ASCII: (cells, components)."""
    text = path.read_text()
    values = re.search(r"internalField\s+nonuniform List<\w+>\s*\d+\s*\((.*?)\n\)\s*;", text, re.S)
    assert values is not None, f"{path} has no list of cell values"
    return np.fromstring(re.sub(r"[()\n]", " ", values[1]), sep=" ").reshape(-1, components)


def pictures(directory: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Time step and true fields of the held-out samples that the server keeps for pictures."""
    with h5py.File(directory / "validation_snapshots.h5") as file:
        for group in file.values():
            if isinstance(group, h5py.Group):
                yield (
                    int(group.attrs["step"]),
                    {name: np.array(group[name]["true"]) for name in group if isinstance(group[name], h5py.Group)},
                )


@pytest.fixture
def studied(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Streams one training and one held-out simulation of a case through the real server; gives the report."""

    def stream(case: Path, fields: dict[str, Any], *command: str) -> dict[str, Any]:
        with live_server(tmp_path / "run", fields, validation_simulations=1) as server, worker(server) as client:
            for simulation in client.simulations():
                code, output = solve(server, simulation, case, *command)
                assert code == 0, output[-3000:]
                assert f"simulation {simulation.id} attempt 1" in output
                simulation.exited()
            report = server.report()
        assert report["status"] == "finished"
        assert report["simulations"]["finished"] == 2
        assert report["samples"]["unique"] == report["samples"]["expected"]
        assert report["samples"]["rejected"] == report["samples"]["duplicates_dropped"] == 0
        return report

    return stream


def test_every_time_step_of_the_cavity_arrives_as_the_solver_has_it(
    tutorial: Callable[..., Path], studied: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    case = cavity_of(tutorial)
    report = studied(case, CAVITY, "icoFoam")
    assert report["samples"]["unique"] == STEPS
    seen = list(pictures(tmp_path / "run"))
    assert len(seen) == 3
    for step, fields in seen:
        time_directory = case / f"{0.005 * (step + 1):.6g}"
        for name, components in (("U", 3), ("p", 1)):
            np.testing.assert_allclose(
                fields[name].reshape(CELLS, components),
                internal_field(time_directory / name, components),
                rtol=1e-6,
                atol=1e-9,
            )


def test_the_mesh_is_sent_once(
    tutorial: Callable[..., Path], studied: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    studied(cavity_of(tutorial), CAVITY, "icoFoam")
    with h5py.File(tmp_path / "run" / "mesh.h5") as mesh:
        centres, volumes = np.array(mesh["cell_centres"]), np.array(mesh["cell_volumes"])
    assert centres.shape == (CELLS, 3)
    axis = (np.arange(20) + 0.5) * 0.005
    np.testing.assert_allclose(centres[:20, 0], axis, rtol=1e-12)  # blockMesh numbers x fastest
    np.testing.assert_allclose(centres[::20, 1], axis, rtol=1e-12)
    np.testing.assert_allclose(volumes, 0.005 * 0.005 * 0.01, rtol=1e-9)


@pytest.mark.parametrize(
    ("entries", "steps"),
    [
        (["executeInterval 3;"], [2, 5, 8, 11, 14, 17]),
        (["executeControl timeStep;", "executeInterval 3;", "writeControl none;"], [2, 5, 8, 11, 14, 17]),
        (["executeControl writeTime;", "executeInterval 6;", "writeControl none;"], [5, 11, 17]),
        (["sendInitial true;"], [-1, *range(STEPS)]),
        (["timeEnd 0.05;"], list(range(10))),
    ],
)
def test_which_time_steps_are_sent(
    tutorial: Callable[..., Path],
    studied: Callable[..., dict[str, Any]],
    tmp_path: Path,
    entries: list[str],
    steps: list[int],
) -> None:
    """Also where OpenFOAM itself would not call end(): when the last time step is none that is sent."""
    case = cavity_of(tutorial, "(p)", *entries)
    report = studied(case, {"p": {}}, "icoFoam")
    assert report["samples"]["unique"] == len(steps)
    for number, fields in pictures(tmp_path / "run"):
        if steps[number] >= 0:
            written = internal_field(case / f"{0.005 * (steps[number] + 1):.6g}" / "p", 1)
            np.testing.assert_allclose(fields["p"].reshape(-1, 1), written, rtol=1e-6, atol=1e-9)


def test_another_solver_needs_the_entry_alone(
    tutorial: Callable[..., Path], studied: Callable[..., dict[str, Any]]
) -> None:
    case = tutorial(
        "incompressible/pisoFoam/RAS/cavity", "(U p k nut)", "executeControl writeTime;", "writeControl none;"
    )
    report = studied(case, {"U": {"components": 3}, "p": {}, "k": {}, "nut": {}}, "pisoFoam")
    assert report["samples"]["unique"] == 20  # the tutorial writes each 100th of its 2000 time steps


def test_tensors_of_every_kind(
    tutorial: Callable[..., Path], studied: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    before = (
        'gradU { type grad; libs ("libfieldFunctionObjects.so"); field U; result gradU; '
        "writeControl writeTime; }\n"
        'R { type turbulenceFields; libs ("libfieldFunctionObjects.so"); field R; fields (R); writeControl writeTime; }\n'
    )
    case = tutorial(
        "incompressible/pisoFoam/RAS/cavity", '(gradU "turbulenceProperties:R" p)', before=before, end_time="0.1"
    )
    control = case / "system" / "controlDict"
    control.write_text(control.read_text().replace("writeInterval   100;", "writeInterval   20;"))
    studied(case, {"gradU": {"components": 9}, "turbulenceProperties:R": {"components": 6}, "p": {}}, "pisoFoam")
    last = dict(pictures(tmp_path / "run"))[19]
    np.testing.assert_allclose(
        last["gradU"].reshape(CELLS, 9), internal_field(case / "0.1" / "gradU", 9), rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(
        last["turbulenceProperties:R"].reshape(CELLS, 6),
        internal_field(case / "0.1" / "turbulenceProperties:R", 6),
        rtol=1e-4,
        atol=1e-6,
    )


def decomposed(case: Path) -> list[str]:
    """Cut a case into two parts, across the order of its cells; gives the command that solves it."""
    header = "FoamFile { version 2.0; format ascii; class dictionary; object decomposeParDict; }\n"
    (case / "system" / "decomposeParDict").write_text(
        header + "numberOfSubdomains 2;\nmethod simple;\nsimpleCoeffs { n (2 1 1); delta 0.001; }\n"
    )
    foam(case, "decomposePar")
    return ["env", *(f"{k}={v}" for k, v in MPI.items()), "mpirun", "-np", "2", "icoFoam", "-parallel"]


def test_a_parallel_solver_streams_whole_fields_in_the_order_of_the_undecomposed_mesh(
    tutorial: Callable[..., Path], studied: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    case = cavity_of(tutorial)
    tight = re.sub(r"(relTol|tolerance) .*;", r"\1 1e-10;", (case / "system" / "fvSolution").read_text())
    (case / "system" / "fvSolution").write_text(tight)
    serial = shutil.copytree(case, tmp_path / "serial")
    foam(serial, "icoFoam", "-noFunctionObjects")
    report = studied(case, CAVITY, *decomposed(case))
    assert report["samples"]["unique"] == STEPS
    addressing = [
        np.array(re.search(r"\((.*)\)", path.read_text(), re.S)[1].split(), int)
        for path in sorted(case.glob("processor*/constant/polyMesh/cellProcAddressing"))
    ]
    assert sorted(np.concatenate(addressing)) == list(range(CELLS))
    assert (np.diff(addressing[0]) > 1).any()  # scattered: processor by processor is not this order
    for step, fields in pictures(tmp_path / "run"):
        name = f"{0.005 * (step + 1):.6g}"
        for rank, cells in enumerate(addressing):
            part = internal_field(case / f"processor{rank}" / name / "U", 3)
            np.testing.assert_allclose(fields["U"][cells], part, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(fields["U"], internal_field(serial / name / "U", 3), atol=1e-6)
    i = np.arange(CELLS)
    with h5py.File(tmp_path / "run" / "mesh.h5") as mesh:
        np.testing.assert_allclose(mesh["cell_centres"][:, :2], 0.005 * np.stack([i % 20 + 0.5, i // 20 + 0.5], axis=1))


def test_a_parallel_mesh_without_addressing_is_sent_processor_by_processor(
    tutorial: Callable[..., Path], tmp_path: Path
) -> None:
    case = cavity_of(tutorial)
    command = decomposed(case)
    for path in case.glob("processor*/constant/polyMesh/cellProcAddressing"):
        path.unlink()
    with live_server(tmp_path / "run", CAVITY) as server, worker(server) as client:
        simulation = next(client.simulations())
        code, output = solve(server, simulation, case, *command)
        assert code == 0, output[-3000:]
        assert "cells are sent processor by processor" in output
        simulation.exited()
        assert server.report()["samples"]["unique"] == STEPS
    with h5py.File(tmp_path / "run" / "mesh.h5") as mesh:
        centres = np.array(mesh["cell_centres"])
    assert (centres[: CELLS // 2, 0] < 0.05).all()
    assert (centres[CELLS // 2 :, 0] > 0.05).all()


# --- what goes wrong ----------------------------------------------------------------------------------------------------


def icofoam(case: Path, **environment: str) -> tuple[int, str, float]:
    begun = time.monotonic()
    variables = {"PENSTOCK_SIMULATION": "0", "PENSTOCK_ATTEMPT": "1", "PENSTOCK_CONNECT_TIMEOUT": "1"} | environment
    own = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    done = subprocess.run(
        ["icoFoam"],
        cwd=case,
        env=openfoam_environment(own) | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, re.sub(r"\s+", " ", done.stdout), time.monotonic() - begun


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
    assert re.search(r"this solver has 2\(U p\): correct 'fields' in the entry penstock", output)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ("", "Entry 'fields' not found in dictionary"),
        ("()", "penstock: no fields: name those to stream"),
        ("(p); executeControl writeTime", "penstock: executeControl writeTime needs writeControl none; beside it"),
    ],
)
def test_an_entry_that_is_wrong(tutorial: Callable[..., Path], fields: str, problem: str) -> None:
    code, output, _ = icofoam(cavity_of(tutorial, fields))
    assert code == 1
    assert "FOAM FATAL IO ERROR" in output
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
    """icoFoam with minutes of work before it, when the server has got the first time steps of it."""
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


# --- building -----------------------------------------------------------------------------------------------------------


def test_build_says_where_the_library_went(tmp_path: Path, library: Path) -> None:
    assert library.name == LIBRARY
    said: list[str] = []
    built = build(tmp_path / "lib", said.append)
    assert built == tmp_path / "lib" / LIBRARY
    assert [path.name for path in (tmp_path / "lib").iterdir()] == [LIBRARY]
    assert said[-1] == f"compiling {LIBRARY}"
    symbols = subprocess.run(["nm", "-DC", built], capture_output=True, text=True, check=True).stdout
    assert "Foam::functionObjects::penstockStream::execute()" in symbols


@pytest.mark.slow
def test_a_site_with_wmake_builds_with_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, library: Path, tutorial: Callable[..., Path]
) -> None:
    """OpenFOAM's own wmake, from the source package that `build` has fetched, laid out as a site has it."""
    fetched = next(library.parents[1].glob("headers-*"))
    site, options = tmp_path / "site", "linux64GccDPInt32Opt"
    shutil.copytree(fetched / "wmake", site / "wmake")
    (site / "src").symlink_to(fetched / "src")
    (site / "etc").symlink_to(Path(openfoam_environment()["WM_PROJECT_DIR"]) / "etc")
    binaries = site / "platforms" / options / "lib"
    binaries.mkdir(parents=True)
    for name in ("OpenFOAM", "finiteVolume"):
        linked = subprocess.run(["ldd", shutil.which("icoFoam") or ""], capture_output=True, text=True, check=True)
        found = re.search(rf"lib{name}\.so => (\S+)", linked.stdout)
        assert found is not None
        (binaries / f"lib{name}.so").symlink_to(found[1])
    monkeypatch.setenv("WM_PROJECT", "OpenFOAM")
    for name, value in {
        "PROJECT_DIR": site,
        "PROJECT_VERSION": "v1912",
        "DIR": site / "wmake",
        "ARCH": "linux64",
        "ARCH_OPTION": "64",
        "COMPILER": "Gcc",
        "COMPILER_TYPE": "system",
        "COMPILE_OPTION": "Opt",
        "PRECISION_OPTION": "DP",
        "LABEL_SIZE": "32",
        "LABEL_OPTION": "Int32",
        "OPTIONS": options,
    }.items():
        monkeypatch.setenv(f"WM_{name}", str(value))
    monkeypatch.setenv("FOAM_LIBBIN", str(binaries))
    with pytest.raises(OpenFOAMBuildError, match=r"^FOAM_USER_LIBBIN is not set: source .*/etc/bashrc"):
        build()
    monkeypatch.setenv("FOAM_USER_LIBBIN", str(tmp_path / "user"))
    subprocess.run(["make", "-s", "-C", site / "wmake" / "src"], stdout=subprocess.DEVNULL, check=True)
    assert library_path() is None
    assert build() == library_path() == tmp_path / "user" / LIBRARY
    case = cavity_of(tutorial, library=library_path())
    assert "penstock: no server given" in icofoam(case)[1]


def test_the_library_is_looked_for_where_build_puts_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert library_path() is None
    folder = tmp_path / "penstock" / "openfoam-v1912" / "lib"
    folder.mkdir(parents=True)
    (folder / LIBRARY).touch()
    assert library_path() == folder / LIBRARY


def test_what_is_missing_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OpenFOAMBuildError, match=r"^gcc, g\+\+, pkg-config not found on PATH; .*apt-get install g\+\+"):
        build(tmp_path / "lib")
    for tool in ("gcc", "g++", "pkg-config"):
        (tmp_path / tool).symlink_to("/bin/false")
    with pytest.raises(OpenFOAMBuildError, match=r"^libzmq 4\.3 or later .*apt-get install .*libzmq3-dev$"):
        build(tmp_path / "lib")
    monkeypatch.setenv("WM_PROJECT_DIR", str(tmp_path))
    with pytest.raises(OpenFOAMBuildError, match=r"is not an OpenFOAM: it has no etc/controlDict"):
        build(tmp_path / "lib")
