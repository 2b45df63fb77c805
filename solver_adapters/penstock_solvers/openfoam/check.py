"""Checking an OpenFOAM case, and the programs that it needs, without running anything."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from penstock_client.errors import PenstockError
from penstock_solvers.openfoam.case import Control, copy_template, load_entries, read_control
from penstock_solvers.openfoam.environment import find_application, openfoam_environment
from penstock_solvers.openfoam.runner import solver_options, stream_library
from penstock_solvers.openfoam.settings import DEFAULT_MESH, CaseSettings
from penstock_solvers.processes import SolverFailed, require_mpirun, tmpfs_directory


def check_case(solver: Mapping[str, Any]) -> list[str]:
    """Find the problems that would keep the study's case from running. Nothing is run.

    Args:
        solver: as for `OpenFOAMRunner`.

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
    environment: dict[str, str] | None = attempt(openfoam_environment)
    if environment is not None:
        programs = {command[0]: "mesh_commands" for command in settings.mesh_commands}
        programs |= {control.application: "application"} if control is not None else {}
        for program, key in programs.items():
            for problem in _program_problems(program, environment):
                problems.append(f"[solver] {key}: {problem}")
        if settings.ranks > 1:
            attempt(lambda: require_mpirun(settings.ranks, environment.get("PATH")))
            attempt(lambda: find_application("decomposePar", environment))
        if settings.fields and control is not None and not control.streams:
            attempt(stream_library)
    if control is not None:
        problems += _case_problems(settings, control)
    return problems


def _program_problems(program: str, environment: Mapping[str, str]) -> list[str]:
    try:
        find_application(program, environment)
    except PenstockError as error:
        return [str(error)]
    return []


def _case_problems(settings: CaseSettings, control: Control) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="penstock-check-", dir=tmpfs_directory()) as folder:
        copied = Path(folder, "case")
        copy_template(settings.case, control.start, copied)
        problems = load_entries(settings, copied)[1]
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
