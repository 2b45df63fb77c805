"""Running real OpenFOAM cases, without streaming: that they run, what they report, and how they fail."""

import json
import shutil
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from penstock_client.errors import Abandoned
from penstock_server.study import Study
from penstock_solvers.openfoam import OpenFOAMRunner, check_case
from penstock_solvers.openfoam.dictionary import CaseError, FoamDictionary
from penstock_solvers.openfoam.environment import openfoam_environment
from penstock_solvers.openfoam.errors import Diverged
from penstock_solvers.processes import RunSummary, SolverFailed, Task, tmpfs_directory
from waiting import busy

pytestmark = pytest.mark.openfoam

EXAMPLES = Path(__file__).parents[3] / "examples"
Start = Callable[..., RunSummary]


def study_of(name: str) -> Study:
    return Study.model_validate(tomllib.loads((EXAMPLES / name / "study.toml").read_text()))


def solver_of(name: str, **changes: Any) -> dict[str, Any]:
    """An example's [solver] section as a worker gets it, but streaming nothing."""
    study = study_of(name)
    solver = study.solver.model_dump(mode="json")
    parameters = list(study.parameters.bounds)
    return solver | {"case": str(EXAMPLES / name / "case"), "parameters": parameters, "fields": []} | changes


def point(name: str, corner: int) -> dict[str, float]:
    return {parameter: bounds[corner] for parameter, bounds in study_of(name).parameters.bounds.items()}


def never() -> bool:
    return False


@pytest.fixture
def scratch() -> Iterator[Path]:
    folder = tmpfs_directory() / f"penstock-test-{time.time_ns()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def run(scratch: Path) -> Iterator[Start]:
    runners: list[OpenFOAMRunner] = []

    def start(
        solver: dict[str, Any],
        parameters: dict[str, float],
        abandoned: Callable[[], bool] = never,
        log: Path | None = None,
    ) -> RunSummary:
        runners.append(OpenFOAMRunner(solver, scratch))
        return runners[-1].run(Task(1, 1, parameters, {}, log), abandoned)

    yield start
    assert not list(scratch.glob("*/simulation-*")), "a simulation's case was left behind"
    for runner in runners:
        runner.close()
    assert not list(scratch.iterdir()), "a template was left behind"


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """A copy of the cavity that a test may change."""
    return Path(shutil.copytree(EXAMPLES / "cavity" / "case", tmp_path / "case"))


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize(("name", "time_steps", "delta_t"), [("cavity", 100, 0.002), ("elbow", 200, 0.05)])
@pytest.mark.parametrize("corner", [0, 1])
def test_the_examples_run_with_a_courant_number_below_one(
    run: Start, name: str, time_steps: int, delta_t: float, corner: int
) -> None:
    summary = run(solver_of(name), point(name, corner))
    assert summary.time_steps == time_steps
    assert summary.delta_t == delta_t
    assert summary.max_courant is not None
    assert 0 < summary.max_courant < 1
    assert set(summary.initial_residuals) == {"Ux", "Uy", "p"}
    assert all(0 <= value < 1e-5 for value in summary.final_residuals.values())


def test_the_examples_have_no_problems_and_are_left_untouched() -> None:
    for name in ("cavity", "elbow"):
        before = sorted(p.stat().st_mtime_ns for p in (EXAMPLES / name).rglob("*"))
        assert check_case(solver_of(name)) == []
        assert sorted(p.stat().st_mtime_ns for p in (EXAMPLES / name).rglob("*")) == before


def test_the_parameters_reach_the_solver(run: Start) -> None:
    slow = run(solver_of("cavity"), {"lid_velocity": 0.5, "viscosity": 0.01})
    fast = run(solver_of("cavity"), {"lid_velocity": 2.0, "viscosity": 0.01})
    assert slow.max_courant is not None
    assert fast.max_courant is not None
    assert fast.max_courant == pytest.approx(4 * slow.max_courant, rel=0.01)


def test_no_time_folder_is_ever_written(run: Start, scratch: Path, case: Path) -> None:
    edit(case / "system" / "controlDict", "endTime         0.2;", "endTime         2;")
    seen: set[str] = set()

    def look() -> bool:
        seen.update(p.name for p in scratch.glob("*/simulation-*/*"))
        return False

    watching = threading.Event()
    watcher = threading.Thread(target=lambda: [look() for _ in iter(lambda: watching.wait(0.01), True)])
    watcher.start()
    run(solver_of("cavity", case=str(case)), point("cavity", 1))
    watching.set()
    watcher.join()
    assert seen == {"0", "constant", "system"}


def test_the_mesh_is_made_once_and_again_where_a_parameter_shapes_it(run: Start, tmp_path: Path) -> None:
    log = tmp_path / "log"
    solver = solver_of("cavity")
    for _ in range(2):
        run(solver, point("cavity", 1), log=log)
    assert log.read_text().count("Creating polyMesh from blockMesh") == 1
    solver["parameters"] = ["size"]
    solver["entries"] = {"size": {"file": "system/blockMeshDict", "entry": "scale"}}
    large = run(solver, {"size": 0.2}, log=log)
    small = run(solver, {"size": 0.1}, log=log)
    assert log.read_text().count("Creating polyMesh from blockMesh") == 3
    assert large.max_courant is not None
    assert small.max_courant is not None
    assert small.max_courant == pytest.approx(2 * large.max_courant, rel=0.05)


@pytest.mark.parametrize(("file", "entry_file"), [("0/U.orig", "0/U.orig"), ("0/U.orig", "0/U")])
def test_a_file_that_a_mesh_command_copies_carries_its_parameter(
    run: Start, case: Path, file: str, entry_file: str
) -> None:
    (case / "0" / "U").rename(case / file)
    solver = solver_of("cavity", case=str(case), mesh_commands=[["blockMesh"], ["cp", file, "0/U"]])
    solver["entries"]["lid_velocity"] |= {"file": entry_file}
    assert check_case(solver) == []
    slow = run(solver, {"lid_velocity": 0.5, "viscosity": 0.01})
    fast = run(solver, {"lid_velocity": 2.0, "viscosity": 0.01})
    assert slow.max_courant is not None
    assert fast.max_courant == pytest.approx(4 * slow.max_courant, rel=0.01)


def test_ranks_run_in_parallel(run: Start, tmp_path: Path) -> None:
    log = tmp_path / "log"
    summary = run(solver_of("cavity", ranks=2), point("cavity", 1), log=log)
    assert summary.time_steps == 100
    assert summary.max_courant is not None
    assert 0 < summary.max_courant < 1
    assert "nProcs : 2" in log.read_text()


def test_an_existing_mesh_needs_no_mesh_commands(run: Start, case: Path) -> None:
    environment_case = solver_of("cavity", case=str(case))
    run(environment_case | {"mesh_commands": [["blockMesh"], ["checkMesh"]]}, point("cavity", 0))
    problems = check_case(environment_case | {"mesh_commands": []})
    assert len(problems) == 1
    assert "has no constant/polyMesh" in problems[0]
    with pytest.raises(CaseError, match="has no mesh: no constant/polyMesh after the mesh commands"):
        run(environment_case | {"mesh_commands": []}, point("cavity", 0))


def test_divergence_is_noticed_by_the_courant_number(run: Start) -> None:
    with pytest.raises(
        SolverFailed, match=r"diverged: Courant number \S+ at time 0.004, above max_courant = 100"
    ) as caught:
        run(solver_of("cavity"), {"lid_velocity": 1e5, "viscosity": 0.01})
    assert 0 < len(caught.value.tail) <= 20
    assert "Courant Number" in str(caught.value)
    assert isinstance(caught.value, Diverged)
    assert caught.value.final


def test_a_floating_point_exception_is_explained(run: Start) -> None:
    solver = solver_of("cavity", options={"max_courant": 1e300})
    with pytest.raises(SolverFailed, match="floating point exception") as caught:
        run(solver, {"lid_velocity": 1e170, "viscosity": 0.01})
    assert len(caught.value.tail) == 20


def test_openfoams_own_message_is_the_reason(run: Start, case: Path) -> None:
    edit(case / "system" / "fvSchemes", "div(phi,U)      Gauss linear;", "")
    with pytest.raises(SolverFailed) as caught:
        run(solver_of("cavity", case=str(case)), point("cavity", 0))
    assert "icoFoam ended with code 1" in caught.value.reason
    assert "div(phi,U)" in caught.value.reason
    assert "\n" not in caught.value.reason
    assert "FOAM exiting" in caught.value.tail


def test_a_mesh_command_that_fails_is_told_and_tried_again_by_the_next(run: Start, case: Path) -> None:
    mesh = case / "system" / "blockMeshDict"
    edit(mesh, "(3 7 6 2)", "(3 7 6 0)")
    solver = solver_of("cavity", case=str(case))
    with pytest.raises(
        SolverFailed, match="blockMesh was ended by SIGABRT: face 0 in patch 0 does not have neighbour cell face"
    ):
        run(solver, point("cavity", 0))
    edit(mesh, "(3 7 6 0)", "(3 7 6 2)")
    assert run(solver, point("cavity", 0)).time_steps == 100


def test_a_case_that_cannot_be_prepared_is_not_prepared_again(case: Path, scratch: Path, tmp_path: Path) -> None:
    edit(case / "system" / "blockMeshDict", "(3 7 6 2)", "(3 7 6 0)")
    log = tmp_path / "log"
    with OpenFOAMRunner(solver_of("cavity", case=str(case)), scratch) as runner:
        for number in range(3):
            with pytest.raises(CaseError, match="the case cannot be prepared: .*blockMesh was ended") as caught:
                runner.run(Task(number, 1, point("cavity", 0), {}, log), never)
            assert caught.value.final
    assert log.read_text().count("Creating block mesh topology") == 1


def test_an_abandoned_simulation_leaves_nothing(run: Start, scratch: Path, case: Path) -> None:
    edit(case / "system" / "controlDict", "endTime         0.2;", "endTime         2000;")
    started = time.monotonic()
    with pytest.raises(Abandoned):
        run(solver_of("cavity", case=str(case), ranks=2), point("cavity", 0), lambda: len(solvers(scratch)) >= 2)
    assert time.monotonic() - started < 30 * busy()
    assert solvers(scratch) == []


def solvers(scratch: Path) -> list[psutil.Process]:
    """The solvers that run in a case below `scratch`."""
    processes = psutil.process_iter(["name", "status", "cwd"])
    return [
        p
        for p in processes
        if p.info["name"] == "icoFoam" and p.info["status"] != "zombie" and str(p.info["cwd"]).startswith(str(scratch))
    ]


def test_concurrent_workers_share_one_template(scratch: Path, tmp_path: Path) -> None:
    code = (
        "import json, sys; from pathlib import Path; from penstock_solvers.openfoam.runner import *\n"
        "solver, point, scratch, log = map(json.loads, sys.argv[1:])\n"
        "with OpenFOAMRunner(solver, Path(scratch)) as runner:\n"
        "    for i in range(3): runner.run(Task(i, 1, point, {}, Path(log)), lambda: False)\n"
    )
    logs = [tmp_path / f"log-{i}" for i in range(2)]
    arguments = [json.dumps(x) for x in (solver_of("cavity"), point("cavity", 0), str(scratch))]
    workers = [subprocess.Popen([sys.executable, "-c", code, *arguments, json.dumps(str(log))]) for log in logs]
    assert [worker.wait() for worker in workers] == [0, 0]
    text = "".join(log.read_text() for log in logs)
    assert (
        text.count("Creating polyMesh from blockMesh") <= 2
    )  # once, or twice if one worker was done before the other began
    assert text.count("\nEnd") >= 6
    assert list(scratch.iterdir()) == []


def test_problems_name_the_place_the_value_and_the_remedy(case: Path) -> None:
    entries = {
        "lid_velocity": {"file": "0/U", "entry": "boundaryField.lid.value"},
        "viscosity": {"file": "nu", "entry": "nu"},
    }
    edit(case / "system" / "controlDict", "icoFoam", "icoFaom")
    problems = check_case(
        solver_of("cavity", case=str(case), entries=entries, mesh_commands=[["blokMesh"]], options={"max_courants": 3})
    )
    told = "\n".join(problems)
    assert len(problems) == len(told.splitlines()) == 5
    assert "[solver.options] max_courants: expected one of max_courant" in told
    assert "[solver] mesh_commands: 'blokMesh' is not an installed program; did you mean 'blockMesh'" in told
    assert "[solver] application: 'icoFaom' is not an installed program; did you mean 'icoFoam'" in told
    assert "[solver.entries] lid_velocity: file = '0/U': 0/U has no entry 'boundaryField.lid.value'; nearest: " in told
    assert "[solver.entries] viscosity: file = 'nu': nu does not exist" in told


def test_what_is_written_is_what_openfoam_reads(case: Path) -> None:
    """PyFoam's text against OpenFOAM's own parser, for a nonuniform field as a mesh tool leaves it."""
    values = " ".join(f"({i}.123456789 0 1e-07)" for i in range(400))
    field = case / "0" / "U"
    edit(field, "internalField   uniform (0 0 0);", f"internalField nonuniform List<vector> 400 ({values});")
    contents = FoamDictionary(field)
    contents.set("boundaryField.movingWall.value", "uniform (1.5 0 0)")
    contents.write(field)

    def read(entry: str) -> str:
        command = ["foamDictionary", "-case", str(case), "-precision", "12", "-entry", entry, "-value", "0/U"]
        return subprocess.run(
            command,
            env=openfoam_environment() | {"PWD": str(case)},
            cwd=case,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert read("boundaryField.movingWall.value").split("\n")[0] == "uniform ( 1.5 0 0 )"
    assert "399.123456789 0 1e-07" in " ".join(read("internalField").split())
