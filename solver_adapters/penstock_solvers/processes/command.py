"""Any program as a solver: the study file gives its command, and the program itself streams to the server."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from penstock_solvers.processes.mpi import mpi_environment, require_mpirun, with_mpi
from penstock_solvers.processes.program import run_program
from penstock_solvers.processes.scratch import Scratch, default_root
from penstock_solvers.processes.task import RunSummary, SolverFailed, Task


def format_command(
    command: Sequence[str], parameters: Mapping[str, float], directory: Path, search: str | None = None
) -> list[str]:
    """Fill the parameters into the command and make the paths of its files absolute.

    Args:
        command: program and arguments; "{name}" stands for a parameter, written with full precision. "{name:g}" and
            other format specifications work too, and "{{" stands for a brace.
        parameters: parameter values, by name.
        directory: folder of the study file. A program with a "/" is looked for there, and so is an argument that names
            a file there, because the program runs in another folder.
        search: PATH to search for a program without a "/"; default: this process's PATH.

    Returns:
        The program's path and its arguments.

    Raises:
        SolverFailed: a parameter is unknown, a format is wrong, or the program is missing or not executable.
    """
    program, *arguments = _fill(command, parameters)
    return [_program(program, directory, search), *(_beside_study(argument, directory) for argument in arguments)]


def _fill(command: Sequence[str], parameters: Mapping[str, float]) -> list[str]:
    filled = []
    for argument in command:
        try:
            filled.append(argument.format_map({name: float(value) for name, value in parameters.items()}))
        except KeyError as error:
            raise SolverFailed(
                f"[solver] command: {argument!r} names {error.args[0]!r}, which is not a parameter; expected one of "
                f'{", ".join(parameters)} (a plain brace is written "{{{{")'
            ) from error
        except (ValueError, IndexError, AttributeError, TypeError) as error:
            raise SolverFailed(
                f"[solver] command: {argument!r} cannot be filled in ({error}); expected forms such as "
                '"--nu={viscosity}" or "{viscosity:g}", and "{{" for a plain brace'
            ) from error
    return filled


def _program(program: str, directory: Path, search: str | None) -> str:
    if "/" not in program:
        found = shutil.which(program, path=search)
        if found is None:
            near = (
                f' (there is one beside the study file: write "./{program}")' if (directory / program).is_file() else ""
            )
            raise SolverFailed(
                f"[solver] command: {program!r} is not an installed program: nothing of that name on PATH{near}; "
                "install it or give its path"
            )
        return found
    path = directory / program
    if not path.is_file():
        raise SolverFailed(f"[solver] command: {program!r} does not exist: expected a program at {path}")
    if not os.access(path, os.X_OK):
        raise SolverFailed(f"[solver] command: {path} is not executable; run: chmod +x {path}")
    return str(path.absolute())


def _beside_study(argument: str, directory: Path) -> str:
    path = directory / argument
    try:
        return str(path.absolute()) if argument and path.is_file() else argument
    except OSError:  # too long for the name of a file
        return argument


class CommandRunner:
    """Runs the study's command once per simulation; implements `penstock_solvers.processes.Runner`.

    Args:
        solver: the study's [solver] section and "directory", the folder of the study file; "command", "case", "ranks"
            and "wall_time" are used. The command runs in the folder `case` if that is given, else in an empty folder in
            memory that is removed afterwards.
    """

    def __init__(self, solver: Mapping[str, Any]) -> None:
        self._command: list[str] = list(solver["command"])
        self._directory = Path(solver["directory"])
        self._case = self._directory / solver["case"] if solver.get("case") else None
        self._ranks = int(solver.get("ranks", 1))
        self._wall_time = float(solver.get("wall_time", 3600.0))
        self._scratch = Scratch(default_root(), "command", Path.mkdir)

    def __enter__(self) -> CommandRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the folder in memory, unless another worker uses it."""
        self._scratch.close()

    def run(self, task: Task, abandoned: Callable[[], bool]) -> RunSummary:
        """Run one simulation; see `penstock_solvers.processes.Runner`."""
        environment = {**os.environ, **task.environment}
        command = format_command(self._command, task.parameters, self._directory, environment.get("PATH"))
        require_mpirun(self._ranks, environment.get("PATH"))
        if self._case is not None and not self._case.is_dir():
            raise SolverFailed(
                f"[solver] case = {str(self._case)!r} is not a folder: expected the command's working folder"
            )
        try:
            with self._scratch.simulation(f"{task.simulation}-{task.attempt}") as scratch:
                if self._ranks > 1:
                    environment |= mpi_environment(scratch)
                seconds = run_program(
                    with_mpi(command, self._ranks),
                    directory=self._case or scratch,
                    environment=environment,
                    wall_time=self._wall_time,
                    abandoned=abandoned,
                    log=task.log,
                )
        except OSError as error:
            raise SolverFailed(f"the files of simulation {task.simulation} cannot be written: {error}") from error
        return RunSummary(seconds=seconds)


def check_command(solver: Mapping[str, Any], *, programs: bool = True) -> list[str]:
    """Find the problems that would keep the study's command from running. Nothing is run.

    Args:
        solver: as for `CommandRunner`, and "parameters", the names of the parameters.
        programs: also whether the command's program, and mpirun where it is needed, are installed here.

    Returns:
        One line per problem; empty if there is none.
    """
    directory = Path(solver["directory"])
    problems = []
    command, parameters = solver["command"], dict.fromkeys(solver.get("parameters", ()), 1.0)
    try:
        if programs:
            format_command(command, parameters, directory)
        else:
            _fill(command, parameters)
    except SolverFailed as error:
        problems.append(error.reason)
    try:
        require_mpirun(int(solver.get("ranks", 1)) if programs else 1)
    except SolverFailed as error:
        problems.append(error.reason)
    case = solver.get("case")
    if case and not (directory / case).is_dir():
        problems.append(f"[solver] case = {case!r} is not a folder: expected the folder that the command is to run in")
    return problems
