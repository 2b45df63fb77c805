"""libpenstock beyond one rank of C: MPI, Fortran, threads, Melissa's calls, and how all of it is installed. Real MPI, real server."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from native import ROOT, SANITIZERS, Installed, serve
from numpy.typing import NDArray

from live_server import LiveServer, worker
from mpi import environment, mpirun, recorded, recorder, require
from waiting import PATIENCE

SOURCES = Path(__file__).parent / "mpi"
HEAT_PARAMETERS = ("initial", "left", "right", "bottom", "top")

pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    require("mpirun", "mpicc", "mpifort", "gfortran")
    return Installed(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    require("mpirun", "mpicc", "mpifort", "gfortran")
    return Installed(tmp_path_factory.mktemp("sanitized"), SANITIZERS)


# --- heat solvers -------------------------------------------------------------------------------------------------------


def heat(
    directory: Path, installed: Installed, folder: Path, ranks: int, points: int, steps: int, prefix: Sequence[str] = ()
) -> NDArray[np.float32]:
    """The field of each time step as the server has it, (steps, points, points)."""
    with recorder(directory, {"T": {}}, parameters={name: [100.0, 500.0] for name in HEAT_PARAMETERS}) as server:
        serve(server, installed, [folder / "heat", str(points), str(steps)], ranks=ranks, prefix=prefix)
        report = server.report()
    assert (report["status"], report["time_steps"], report["duplicates_dropped"]) == ("finished", steps, 0)
    return recorded(server, 0)[2].reshape(steps, points, points)


def reference(directory: Path, points: int, steps: int) -> NDArray[np.float32]:
    """The same scheme in numpy, operation for operation, with the parameters of that run."""
    with h5py.File(directory / "recording.h5") as file:
        initial, left, right, bottom, top = file["parameters"][0]
    T = np.full((points + 2, points + 2), initial)  # noqa: N806
    T[:, 0], T[:, -1], T[0, 1:-1], T[-1, 1:-1] = left, right, bottom, top
    out = np.empty((steps, points, points), np.float32)
    for step in range(steps):
        for _ in range(20):
            at = T[1:-1, 1:-1]
            T[1:-1, 1:-1] = at + 0.2 * (T[1:-1, :-2] + T[1:-1, 2:] + T[:-2, 1:-1] + T[2:, 1:-1] - 4.0 * at)
        out[step] = T[1:-1, 1:-1]
    return out


@pytest.mark.parametrize(("language", "ranks"), [("c", 4), ("fortran", 3)])
def test_the_parts_of_a_heat_solvers_ranks_are_the_serial_field_exactly(
    plain: Installed, tmp_path: Path, language: str, ranks: int
) -> None:
    folder = plain.example(f"heat_{language}_mpi")
    serial = heat(tmp_path / "serial", plain, folder, 1, 19, 6)
    parallel = heat(tmp_path / "parallel", plain, folder, ranks, 19, 6)
    np.testing.assert_array_equal(parallel, serial)
    np.testing.assert_array_equal(serial, reference(tmp_path / "serial", 19, 6))


def test_the_heat_solver_in_c_is_clean_under_the_sanitizers(sanitized: Installed, tmp_path: Path) -> None:
    folder = sanitized.example("heat_c_mpi")
    fields = heat(tmp_path / "run", sanitized, folder, 4, 11, 5)
    np.testing.assert_array_equal(fields, reference(tmp_path / "run", 11, 5))


@pytest.mark.parametrize("language", ["c", "fortran"])
def test_the_heat_solvers_are_clean_under_valgrind(plain: Installed, tmp_path: Path, language: str) -> None:
    require("valgrind")
    log = tmp_path / "valgrind-%p"
    valgrind = ["valgrind", "-q", "--leak-check=full", "--errors-for-leak-kinds=definite", "--error-exitcode=9"]
    suppressions = ["/usr/share/openmpi/openmpi-valgrind.supp", ROOT / "tests" / "clients" / "mpi" / "valgrind.supp"]
    valgrind += [f"--log-file={log}", *(f"--suppressions={path}" for path in suppressions)]
    try:
        fields = heat(tmp_path / "run", plain, plain.example(f"heat_{language}_mpi"), 2, 7, 2, valgrind)
    finally:
        said = "".join(path.read_text() for path in tmp_path.glob("valgrind-*"))
    assert said == ""
    np.testing.assert_array_equal(fields, reference(tmp_path / "run", 7, 2))


def test_a_rank_whose_neighbour_cannot_connect_says_so_in_every_call(sanitized: Installed, tmp_path: Path) -> None:
    program = sanitized.program("mpicc", SOURCES / "lone_rank.c", "penstock-mpi")
    with recorder(tmp_path / "run", {"u": {}}) as server:
        said = serve(server, sanitized, [program], ranks=2)
        text = "another MPI rank could not connect to the server; its own message says why"
        assert server.report()["failures"][0] == text
    assert said.splitlines() == 2 * [f"5 {text}"]


# --- the Fortran module -------------------------------------------------------------------------------------------------

ALL_FIELDS: dict[str, dict[str, Any]] = {
    "u": {"components": 2},
    "f": {},
    "i": {},
    "l": {},
    "s": {},
    "w": {"components": 2},
}


@pytest.fixture(scope="module")
def fields(sanitized: Installed) -> Path:
    return sanitized.program("mpifort", SOURCES / "fields.f90", "penstock-fortran", "-std=f2008")


def test_fortran_sends_every_kind_and_rank_of_array(sanitized: Installed, fields: Path, tmp_path: Path) -> None:
    with recorder(tmp_path / "run", ALL_FIELDS) as server:
        serve(server, sanitized, [fields], ranks=2)
        server.report()
    _, times, values = recorded(server, 0)
    assert times.tolist() == [0.0, 0.5, 1.0]
    point = np.arange(1, 7)
    for step in range(3):
        u = np.stack([10 * point + j + 100 * step for j in (1, 2)], axis=1)
        f, i, k = np.arange(1, 13) + step, point * step, np.concatenate([-point, point])
        s, w = np.array([0.25 + step]), step - np.arange(1, 13)
        np.testing.assert_array_equal(values[step], np.concatenate([u.reshape(-1), f, i, k, s, w]))
    with h5py.File(tmp_path / "run" / "recording.h5") as file:
        np.testing.assert_array_equal(file["mesh/cell_volumes"], point[:, None])
        assert '"shape": [6, 2, 1]' in file.attrs["fields"]


@pytest.mark.parametrize(
    ("way", "text"),
    [
        ("parameter", "penstock: the study has no parameter b"),
        ("outside", "penstock: field u: index 6, expected 0 to 5"),
        ("beyond", "penstock: field i: 1 elements from 6, announced were 6 in all"),
    ],
)
def test_a_mistake_in_fortran_ends_all_ranks_and_is_reported(
    sanitized: Installed, fields: Path, tmp_path: Path, way: str, text: str
) -> None:
    with recorder(tmp_path / "run", ALL_FIELDS) as server:
        said = serve(server, sanitized, [fields, way], ranks=2, code=1)
        assert server.report()["failures"][0] == text.removeprefix("penstock: ")
    assert text in said


def test_fortran_can_look_at_a_status_and_report_a_failure_itself(
    sanitized: Installed, fields: Path, tmp_path: Path
) -> None:
    with recorder(tmp_path / "late", ALL_FIELDS) as server:
        said = serve(server, sanitized, [fields, "late"], ranks=1)
    assert "1 field u: call penstock_indices once, before its first piece" in said
    with recorder(tmp_path / "fail", ALL_FIELDS) as server:
        serve(server, sanitized, [fields, "fail"], ranks=1)
        assert server.report()["failures"][0] == "diverged on purpose"
    with recorder(tmp_path / "close", ALL_FIELDS) as server:
        serve(server, sanitized, [fields, "close"], ranks=1)
        assert server.report()["failures"]


# --- Melissa's calls ----------------------------------------------------------------------------------------------------

MELISSA = {"temperature": {}, "pressure": {"shape": [9, 2]}}
STEPS, POINTS = 4, 9


def check_melissa(server: LiveServer, simulation: int) -> None:
    a, times, values = recorded(server, simulation)
    assert times.size == STEPS
    for step in range(STEPS):
        temperature = a + step + np.arange(POINTS) / 1024
        pressure = a - step - np.arange(2 * POINTS) / 1024
        np.testing.assert_array_equal(values[step], np.concatenate([temperature, pressure]).astype(np.float32))


@pytest.mark.parametrize(
    ("compiler", "source", "package", "options", "ranks"),
    [
        ("cc", "melissa.c", "penstock-melissa", [], 0),
        ("mpicc", "melissa.c", "penstock-melissa-mpi", ["-DWITH_MPI"], 4),
        ("mpicc", "melissa.c", "penstock-melissa-mpi", ["-DWITH_MPI", "-DSINCE_0_7"], 1),
        ("mpifort", "melissa.f90", "penstock-melissa-mpi", [], 3),
        ("gfortran", "melissa_fixed.f", "penstock-melissa", [], 0),
    ],
    ids=["c", "c-mpi", "c-mpi-later-header", "fortran-mpi", "fortran-fixed-form"],
)
def test_a_solver_instrumented_for_melissa_streams_once_recompiled(
    sanitized: Installed, tmp_path: Path, compiler: str, source: str, package: str, options: list[str], ranks: int
) -> None:
    name = f"{Path(source).stem}-{ranks}"
    program = sanitized.program(compiler, SOURCES / source, package, *options, name=name)
    with recorder(tmp_path / "run", MELISSA, time="step") as server:
        serve(server, sanitized, [program, "{a!r}", str(STEPS), str(POINTS)], ranks=ranks)
        report = server.report()
    assert (report["status"], report["time_steps"]) == ("finished", STEPS)
    check_melissa(server, 0)


@pytest.mark.parametrize(
    ("way", "text"),
    [("badly", "send all fields of a time step before the next time step"), ("fail_at=2", "")],
)
def test_a_melissa_solver_that_fails_ends_all_ranks_and_is_tried_again(
    sanitized: Installed, tmp_path: Path, way: str, text: str
) -> None:
    program = sanitized.program(
        "mpicc", SOURCES / "melissa.c", "penstock-melissa-mpi", "-DWITH_MPI", name="melissa-fail"
    )
    command = [program, "{a!r}", str(STEPS), str(POINTS)]
    with recorder(tmp_path / "run", MELISSA, time="step", retries=1) as server:
        said = serve(server, sanitized, [*command, way], ranks=3, code=1)
        serve(server, sanitized, command, ranks=2)
        assert server.report()["time_steps"] == STEPS
    assert text in said
    check_melissa(server, 0)


def test_a_solver_without_a_study_says_so(sanitized: Installed) -> None:
    program = sanitized.program(
        "mpicc", SOURCES / "melissa.c", "penstock-melissa-mpi", "-DWITH_MPI", name="melissa-alone"
    )
    variables = {k: v for k, v in environment(sanitized.environment).items() if k != "PENSTOCK_CONNECT"}
    done = subprocess.run(
        mpirun(2, program, "2.0", "1", "4"), env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "set PENSTOCK_CONNECT to the connect.json in the study's run directory" in done.stderr


# --- threads, and how it is installed -------------------------------------------------------------------------------------


def test_threads_stream_with_a_handle_each(tmp_path: Path) -> None:
    command = ["make", "-s", "-C", ROOT / "clients" / "c", f"BUILD={tmp_path}", "CFLAGS=-O1 -g -fsanitize=undefined"]
    subprocess.run([*command, tmp_path / "threads"], check=True)
    with (
        recorder(tmp_path / "run", {"u": {}}, simulations=2, time="step") as server,
        worker(server) as first,
        worker(server) as second,
    ):
        held = [first.next_simulation(), second.next_simulation()]
        done = subprocess.run(
            [tmp_path / "threads", "20", "50"],
            env=server.environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        for simulation in held:
            assert simulation is not None
            simulation.exited()
        server.report()
    for number in range(2):
        values = recorded(server, number)[2]
        expected = 1000 * number + np.arange(20)[:, None] + np.arange(50) / 1024
        np.testing.assert_array_equal(values, expected.astype(np.float32))


def test_cmake_finds_it(plain: Installed, tmp_path: Path) -> None:
    require("cmake")
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(solver C)\nfind_package(MPI REQUIRED COMPONENTS C)\n"
        "find_package(Penstock 0.1 REQUIRED COMPONENTS mpi melissa fortran)\nadd_executable(heat heat.c)\n"
        "target_link_libraries(heat Penstock::mpi MPI::MPI_C)\n"
    )
    (tmp_path / "heat.c").write_text((ROOT / "examples" / "heat_c_mpi" / "heat.c").read_text())
    configure = ["cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={plain.prefix}"]
    subprocess.run(configure, check=True, capture_output=True)
    subprocess.run(["cmake", "--build", tmp_path / "build"], check=True, capture_output=True)
    done = subprocess.run(
        mpirun(2, tmp_path / "build" / "heat", "4", "1"),
        env=environment(plain.environment),
        capture_output=True,
        text=True,
    )
    assert "no server given: set PENSTOCK_CONNECT" in done.stderr
    text = (tmp_path / "CMakeLists.txt").read_text()
    for wrong, told in (("Penstock 0.1", "Penstock 9.0"), ("COMPONENTS mpi", "COMPONENTS cuda")):
        (tmp_path / "CMakeLists.txt").write_text(text.replace(wrong, told))
        assert subprocess.run(configure, capture_output=True, check=False).returncode != 0
