"""Running simulations of an OpenFOAM case: the template is prepared once, then copied for each simulation."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock_solvers.openfoam.case import (
    Control,
    add_control,
    add_decomposition,
    copy,
    copy_prepared,
    copy_template,
    read_control,
    template_key,
)
from penstock_solvers.openfoam.entries import Writing, entry_problems
from penstock_solvers.openfoam.environment import find_application, openfoam_environment
from penstock_solvers.openfoam.errors import CaseError, Diverged
from penstock_solvers.openfoam.log import MAX_COURANT, SolverLog
from penstock_solvers.openfoam.mesh_steps import RESTORE, steps, steps_once
from penstock_solvers.openfoam.settings import LINKED, CaseSettings
from penstock_solvers.processes import (
    RunSummary,
    Scratch,
    SolverFailed,
    Task,
    default_root,
    mpi_environment,
    require_mpirun,
    run_program,
    with_mpi,
)

OPTIONS = {"max_courant": MAX_COURANT}  # the keys of [solver.options], with their defaults


@dataclass(frozen=True)
class Prepared:
    """A prepared template.

    Attributes:
        scratch: the folders of the template and the simulations.
        control: settings of the template's controlDict.
        steps: the mesh commands that run for each simulation.
    """

    scratch: Scratch
    control: Control
    steps: tuple[tuple[str, ...], ...]


class OpenFOAMRunner:
    """Runs simulations of the study's OpenFOAM case; implements `penstock_solvers.processes.Runner`.

    Args:
        solver: the study's [solver] section, with "case" as an absolute path, and the names of "parameters" and
            "fields". Nothing is streamed if there are no fields.
        scratch: folder, in memory if possible, that the workers on this machine share; default: one in /dev/shm. A
            simulation's case is removed when the simulation ends, the template when the last worker that uses it
            closes. Folders of killed workers are removed when the next worker starts.
    """

    def __init__(self, solver: Mapping[str, Any], scratch: Path | None = None) -> None:
        self._settings = CaseSettings.of(solver)
        self._wall_time = float(solver.get("wall_time", 3600.0))
        self._max_courant = float(solver_options(solver)["max_courant"])
        self._root = scratch
        self._prepared: Prepared | None = None
        self._unusable: CaseError | None = None  # why the case cannot be prepared, for all simulations
        self._resources = ExitStack()

    def __enter__(self) -> OpenFOAMRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop using the prepared template."""
        self._resources.close()
        self._prepared = None

    def run(self, task: Task, abandoned: Callable[[], bool]) -> RunSummary:
        """Run one simulation; see `penstock_solvers.processes.Runner`."""
        environment = openfoam_environment({**os.environ, **task.environment})
        try:
            prepared = self._prepare_once(task, environment, abandoned)
            with prepared.scratch.simulation(f"{task.simulation}-{task.attempt}") as directory:
                return self._simulate(prepared, directory, task, environment, abandoned)
        except OSError as error:
            raise SolverFailed(f"the case of simulation {task.simulation} cannot be written: {error}") from error

    def make_case(self, directory: Path, parameters: Mapping[str, float]) -> Control:
        """Make the case of one simulation, with its mesh, to be used by hand. Nothing is run or streamed.

        Args:
            directory: an empty folder.
            parameters: parameter values, by name.

        Returns:
            The settings of its controlDict, which is the user's own.

        Raises:
            CaseError: the case cannot be prepared.
            SolverFailed: a mesh command fails.
        """
        task, environment = Task(0, 1, parameters), openfoam_environment(dict(os.environ))
        prepared = self._prepare_once(task, environment, lambda: False)
        self._fill(prepared, directory, task, environment, lambda: False, link=False)
        return prepared.control

    def _prepare_once(self, task: Task, environment: dict[str, str], abandoned: Callable[[], bool]) -> Prepared:
        """Prepare the template for the first simulation; raise for the later ones what the first one raised."""
        if self._unusable is not None:
            raise CaseError(self._unusable.reason, self._unusable.tail)
        if self._prepared is None:
            try:
                self._prepared = self._prepare(task, environment, abandoned)
            except CaseError as error:
                self._unusable = error
                raise
        return self._prepared

    def _fill(
        self,
        prepared: Prepared,
        directory: Path,
        task: Task,
        environment: dict[str, str],
        abandoned: Callable[[], bool],
        *,
        link: bool,
    ) -> None:
        """Fill the folder of one simulation: the template, the parameters, and what the remaining mesh commands make.

        `link`: the mesh may be a link to the template's.
        """
        links = LINKED if link and not prepared.steps else ()
        copy_prepared(prepared.scratch.template, directory, links, () if prepared.steps else ("0.orig",))
        writing = Writing(directory, self._settings, task.parameters)
        writing.write()
        for step in prepared.steps:
            self._step(step, directory, prepared.control.start, task, environment, abandoned)
            writing.write()
        writing.finish()
        self._require_mesh(directory)

    def _simulate(
        self,
        prepared: Prepared,
        directory: Path,
        task: Task,
        environment: dict[str, str],
        abandoned: Callable[[], bool],
    ) -> RunSummary:
        settings = self._settings
        library = stream_library() if settings.fields and not prepared.control.streams else None
        application = [str(find_application(prepared.control.application, environment))]
        self._fill(prepared, directory, task, environment, abandoned, link=True)
        add_control(directory, prepared.control, settings, library)
        if settings.ranks > 1:
            require_mpirun(settings.ranks, environment.get("PATH"))
            add_decomposition(directory, settings.ranks)
            decompose = [str(find_application("decomposePar", environment))]
            if (directory / "constant" / "regionProperties").is_file():
                decompose.append("-allRegions")
            self._run(decompose, directory, task, environment, abandoned, SolverLog())
            application.append("-parallel")
            session = directory / "mpi"  # mpirun's own files, away from /tmp
            session.mkdir()
            environment = environment | mpi_environment(session)
        log = SolverLog(self._max_courant)
        seconds = self._run(with_mpi(application, settings.ranks), directory, task, environment, abandoned, log)
        return log.summary(seconds)

    def _prepare(self, task: Task, environment: dict[str, str], abandoned: Callable[[], bool]) -> Prepared:
        """Copy and mesh the template, or use the one that another worker has prepared from the same case."""
        settings = self._settings
        control = read_control(settings)

        planned = steps(settings, settings.case, control.start)
        once = steps_once(settings, settings.case, control.start)

        def build(directory: Path) -> None:
            copy_template(settings.case, control.start, directory)
            try:
                for step in planned[:once]:
                    self._step(step, directory, control.start, task, environment, abandoned)
            except SolverFailed as error:
                raise CaseError(f"the case cannot be prepared: {error.reason}", error.tail) from error

        key = template_key(settings, control.start, environment["WM_PROJECT_DIR"])
        scratch = Scratch(self._root or default_root(), key, build)
        self._resources.callback(scratch.close)
        _require_no_problems(entry_problems(settings, scratch.template, complete=once == len(planned)))
        return Prepared(scratch, control, planned[once:])

    def _step(
        self,
        step: tuple[str, ...],
        directory: Path,
        start: str,
        task: Task,
        environment: dict[str, str],
        abandoned: Callable[[], bool],
    ) -> None:
        """Run a mesh command, or copy 0.orig to the folder of the start time."""
        if step == RESTORE:
            copy(directory / "0.orig", directory / start)
        else:
            program = [str(find_application(step[0], environment, directory)), *step[1:]]
            self._run(program, directory, task, environment, abandoned, SolverLog())

    def _require_mesh(self, directory: Path) -> None:
        if not any((directory / "constant").rglob("polyMesh")):
            ran = "; ".join(shlex.join(command) for command in self._settings.mesh_commands) or "none"
            raise CaseError(
                f"[solver] case = '{self._settings.case}' has no mesh: no constant/polyMesh after the mesh commands "
                f"({ran}); set [solver] mesh_commands to what makes it"
            )

    def _run(
        self,
        command: list[str],
        directory: Path,
        task: Task,
        environment: dict[str, str],
        abandoned: Callable[[], bool],
        log: SolverLog,
    ) -> float:
        try:
            return run_program(
                command,
                directory=directory,
                environment=environment,
                wall_time=self._wall_time,
                abandoned=abandoned,
                log=task.log,
                follower=log,
            )
        except SolverFailed as error:
            if log.diverged:
                raise Diverged(error.reason, error.tail) from error
            raise


def _require_no_problems(problems: list[str]) -> None:
    if problems:
        raise CaseError("; ".join(problems))


def solver_options(solver: Mapping[str, Any]) -> dict[str, Any]:
    """Read [solver.options].

    Args:
        solver: the study's [solver] section.

    Returns:
        The options, with defaults for those that are not given.

    Raises:
        CaseError: an unknown option, or a value that is not a number above 0.
    """
    given = dict(solver.get("options", {}))
    for name, value in given.items():
        if name not in OPTIONS:
            raise CaseError(f"[solver.options] {name}: expected one of {', '.join(OPTIONS)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise CaseError(f"[solver.options] {name} = {value!r}: expected a number above 0")
    return OPTIONS | given


def stream_library() -> Path:
    """Return the path of the function object's library.

    Raises:
        CaseError: the library has not been built.
    """
    from penstock_solvers.openfoam.build import library_path

    path = library_path()
    if path is None:
        raise CaseError("the OpenFOAM function object is not built for this OpenFOAM; run: penstock openfoam build")
    return path
