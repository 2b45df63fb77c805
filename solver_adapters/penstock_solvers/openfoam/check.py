"""Checking an OpenFOAM case, and the programs that it needs, without running anything."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from penstock_client.errors import PenstockError
from penstock_solvers.openfoam.case import Control, copy, copy_template, read_control
from penstock_solvers.openfoam.control import adapts_time_step
from penstock_solvers.openfoam.entries import entry_problems
from penstock_solvers.openfoam.environment import find_application, openfoam_environment
from penstock_solvers.openfoam.mesh_steps import RESTORE, makes_entries, steps
from penstock_solvers.openfoam.runner import solver_options, stream_library
from penstock_solvers.openfoam.settings import DEFAULT_MESH, CaseSettings
from penstock_solvers.processes import SolverFailed, require_mpirun, tmpfs_directory


def check_case(solver: Mapping[str, Any], *, programs: bool = True) -> list[str]:
    """Find the problems that would keep the study's case from running. Nothing is run.

    Args:
        solver: as for `OpenFOAMRunner`.
        programs: also whether OpenFOAM, the case's programs and the function object are installed here.

    Returns:
        One line per problem; empty if there is none.
    """
    problems: list[str] = []

    def attempt(check: Callable[[], object]) -> Any:
        try:
            return check()
        except SolverFailed as error:
            problems.append(error.reason)
        except PenstockError as error:
            problems.append(str(error))
        return None

    settings = CaseSettings.of(solver)
    attempt(lambda: solver_options(solver))
    control: Control | None = attempt(lambda: read_control(settings))
    environment: dict[str, str] | None = attempt(openfoam_environment) if programs else None
    if environment is not None:
        keys = {command[0]: "mesh_commands" for command in settings.mesh_commands}
        keys |= {control.application: "application"} if control is not None else {}
        for program, key in keys.items():
            for problem in _program_problems(program, environment, settings.case):
                problems.append(f"[solver] {key}: {problem}")
        if settings.ranks > 1:
            attempt(lambda: require_mpirun(settings.ranks, environment.get("PATH")))
            attempt(lambda: find_application("decomposePar", environment))
        if settings.fields and control is not None and not control.streams:
            attempt(stream_library)
    if control is not None:
        problems += _case_problems(settings, control, (environment or {}) if programs else None)
    return problems


def case_warnings(solver: Mapping[str, Any], time: str) -> list[str]:
    """Find what will run, but perhaps not as the user meant. Nothing is run.

    Args:
        solver: as for `OpenFOAMRunner`.
        time: the study's [samples] time.

    Returns:
        One line per warning.
    """
    with contextlib.suppress(PenstockError, SolverFailed):  # check_case tells that
        if time == "step" and adapts_time_step(CaseSettings.of(solver).case):
            return [
                '[samples] time = "step": the case says adjustTimeStep, so that time step 10 of one simulation is at '
                'another time than that of another; set time = "physical"'
            ]
    return []


def _program_problems(program: str, environment: Mapping[str, str], case: Path) -> list[str]:
    try:
        find_application(program, environment, case)
    except PenstockError as error:
        return [str(error)]
    return []


def _is_there(program: str, environment: Mapping[str, str], case: Path) -> bool:
    return not _program_problems(program, environment, case)


def _case_problems(settings: CaseSettings, control: Control, environment: Mapping[str, str] | None) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="penstock-check-", dir=tmpfs_directory()) as folder:
        copied = Path(folder, "case")
        copy_template(settings.case, control.start, copied)
        if RESTORE in steps(settings, copied, control.start):
            copy(copied / "0.orig", copied / control.start)
        making = [
            command
            for command in settings.mesh_commands
            if makes_entries(command) and (environment is None or _is_there(command[0], environment, settings.case))
        ]
        problems = entry_problems(settings, copied, complete=not making)
        has_mesh = any((copied / "constant").rglob("polyMesh"))
        block_mesh = settings.mesh_commands == DEFAULT_MESH
        if block_mesh and not any((copied / f / "blockMeshDict").is_file() for f in ("system", "constant/polyMesh")):
            remedy = (
                "set mesh_commands = [] to use the case's own mesh"
                if has_mesh
                else "set mesh_commands to what makes the mesh"
            )
            problems.append(
                f"[solver] mesh_commands: '{settings.case}' has no system/blockMeshDict for blockMesh; {remedy}"
            )
        elif not settings.mesh_commands and not has_mesh:
            problems.append(
                f"[solver] mesh_commands = [] and '{settings.case}' has no constant/polyMesh: expected one or the other"
            )
    return problems
