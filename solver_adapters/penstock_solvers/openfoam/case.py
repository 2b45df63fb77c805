"""OpenFOAM cases as templates: copying them, setting the study's parameters, and what Penstock adds to them.

A user's case is never written to. The template is copied to a folder in memory, meshed there once unless a
parameter shapes the mesh, and each simulation gets a copy of its own in which the mesh is a link.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock_solvers.openfoam.dictionary import CaseError, FoamDictionary, unzip

FUNCTION_OBJECT = "penstockStream"
NEVER = 1_000_000_000  # time steps between two writes of the fields; OpenFOAM's label may be a 32 bit integer
DEFAULT_MESH = (("blockMesh",),)
# Files under system/ that mesh tools do not read. A parameter in any other one means a mesh for each simulation.
_NOT_OF_THE_MESH = {"controlDict", "fvSchemes", "fvSolution", "fvOptions", "decomposeParDict"}
_LINKED = frozenset(
    {"polyMesh", "triSurface", "extendedFeatureEdgeMesh", "geometry"}
)  # large, and read only once meshed
_LEFT_OUT = re.compile(r"processor\d+|processors\d+.*|postProcessing|VTK|dynamicCode|log\..*|.*\.foam|\..*|0\.orig")
_TIME = re.compile(r"[0-9.]+(?:[eE][-+]?[0-9]+)?")


@dataclass(frozen=True)
class Entry:
    """Where a parameter goes: an entry of a file of the case, and the format of what is written there."""

    file: str
    entry: str
    value: str = "{}"

    def text(self, parameter: float) -> str:
        """What is written for a value of the parameter. Raises ValueError if the format cannot be used."""
        try:
            text = self.value.format(float(parameter))
            constant = self.value.format(1.0) == self.value.format(2.0)
        except (KeyError, IndexError, AttributeError, ValueError) as error:
            raise ValueError(f"{error}") from error
        if constant:
            raise ValueError('it holds no "{}"')
        return text


@dataclass(frozen=True)
class CaseSettings:
    """What the study says about its case.

    parameters: names of the study's parameters. fields: what is streamed; empty: nothing, and no function object is
    added. every: stream each n-th time step. application: the solver program; None: the one the controlDict names.
    """

    case: Path
    parameters: tuple[str, ...]
    entries: Mapping[str, Entry]
    fields: tuple[str, ...]
    every: int
    ranks: int
    application: str | None
    mesh_commands: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, solver: Mapping[str, Any]) -> CaseSettings:
        """From the study's [solver] section with "parameters" and "fields", the names."""
        mesh_commands: Sequence[Sequence[str]] = solver.get("mesh_commands", DEFAULT_MESH)
        return cls(
            case=Path(solver["case"]),
            parameters=tuple(solver.get("parameters", ())),
            entries={name: Entry(**entry) for name, entry in solver.get("entries", {}).items()},
            fields=tuple(solver.get("fields", ())),
            every=int(solver.get("every", 1)),
            ranks=int(solver.get("ranks", 1)),
            application=solver.get("application"),
            mesh_commands=tuple(tuple(command) for command in mesh_commands),
        )

    @property
    def mesh_each(self) -> bool:
        """Whether a parameter shapes the mesh, so that every simulation needs its own."""
        return bool(self.mesh_commands) and any(_shapes_mesh(Path(entry.file)) for entry in self.entries.values())


def _shapes_mesh(file: Path) -> bool:
    if file.parts[0] == "system":
        return file.name not in _NOT_OF_THE_MESH
    return bool(_LINKED.intersection(file.parts)) or len(file.parts) == 1


@dataclass(frozen=True)
class Control:
    """What a case's controlDict says: the solver program, the folder of the start time, and whether it streams already."""

    application: str
    start: str
    streams: bool


def read_control(settings: CaseSettings) -> Control:
    """Read a template's controlDict.

    Raises:
        CaseError: there is no such case or controlDict, or no folder of the start time.
    """
    case = settings.case
    if not case.is_dir():
        raise CaseError(f"[solver] case = '{case}' does not exist: expected the folder of an OpenFOAM template case")
    for folder in ("system", "constant"):
        if not (case / folder).is_dir():
            raise CaseError(f"[solver] case = '{case}' is not an OpenFOAM case: it has no folder {folder}/")
    control = FoamDictionary(case / "system" / "controlDict", f"{case}/system/controlDict")
    application = settings.application or control.get("application")
    if not isinstance(application, str):
        raise CaseError(
            f"{control.name} names no application; add 'application icoFoam;' (or another solver) there, or set "
            "[solver] application"
        )
    functions = control.get("functions")
    inner = functions.values() if isinstance(functions, dict) else functions if isinstance(functions, list) else ()
    streams = any(isinstance(f, dict) and str(f.get("type", "")).strip('"') == FUNCTION_OBJECT for f in inner)
    return Control(application, _start_folder(case, control.get("startTime")), streams)


def _start_folder(case: Path, start: Any) -> str:
    try:
        time = float(start if start is not None else 0)
    except (TypeError, ValueError) as error:
        raise CaseError(f"{case}/system/controlDict: startTime = {start} is not a number") from error
    for child in sorted(case.iterdir()):
        if child.is_dir() and _TIME.fullmatch(child.name) and float(child.name) == time:
            return child.name
    if time == 0 and (case / "0.orig").is_dir():
        return "0"
    raise CaseError(
        f"[solver] case = '{case}' has no folder {time:g} with the initial fields, where its controlDict's startTime = {time:g} "
        "says the simulation starts; add it or change startTime"
    )


def _parts(case: Path, start: str) -> Iterator[tuple[Path, str]]:
    """What of a case belongs to a template, and the name it has there: no results, logs or other start times."""
    for child in sorted(case.iterdir()):
        result = child.is_dir() and _TIME.fullmatch(child.name) and child.name != start
        if not result and not _LEFT_OUT.fullmatch(child.name):
            yield child, child.name
    if not (case / start).is_dir():
        yield case / "0.orig", start


def copy(source: Path, target: Path, link: Collection[str] = ()) -> None:
    """Copy a file or folder without its permissions; whatever has a name in `link` becomes a link to the original."""
    if source.name in link:
        target.symlink_to(source)
    elif source.is_dir():
        target.mkdir()
        for child in source.iterdir():
            copy(child, target / child.name, link)
    else:
        shutil.copyfile(source, target)


def copy_template(case: Path, start: str, target: Path) -> None:
    """Copy a user's case to a new folder, its compressed dictionaries (and mesh files beside them) unpacked.

    A case that keeps its initial fields in 0.orig gets a folder 0. Deeper folders may stay compressed: OpenFOAM reads
    them so.
    """
    target.mkdir(parents=True)
    for part, name in _parts(case, start):
        copy(part, target / name)
    for folder in (target, target / start, target / "system", target / "constant"):
        for file in folder.glob("*.gz"):
            unzip(file)


def template_key(settings: CaseSettings, start: str, openfoam: str) -> str:
    """A name that is the same for workers whose prepared template would be the same: case, mesh commands, OpenFOAM."""
    meshed = [] if settings.mesh_each else settings.mesh_commands
    digest = hashlib.sha256(json.dumps([meshed, start, openfoam]).encode())
    for part, name in _parts(settings.case, start):
        for path in sorted(part.rglob("*")) if part.is_dir() else [part]:
            if path.is_file():
                digest.update(f"\0{name}/{path.relative_to(part)}\0".encode())
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def load_entries(settings: CaseSettings, directory: Path) -> tuple[dict[str, FoamDictionary], list[str]]:
    """The dictionaries that the study's parameters go to, by file, and what is wrong with the entries, a line each.

    Args:
        settings: what the study says about its case.
        directory: a copy of the template (`copy_template`).
    """
    dictionaries: dict[str, FoamDictionary] = {}
    problems = [
        f"[parameters] {name} goes nowhere: expected an entry {name} = {{ file = ..., entry = ... }} in [solver.entries]"
        for name in settings.parameters
        if name not in settings.entries
    ]
    for name, entry in settings.entries.items():
        place = f"[solver.entries] {name}"
        if name not in settings.parameters:
            expected = ", ".join(settings.parameters)
            problems.append(f"{place}: there is no such parameter; expected one of {expected}")
            continue
        try:
            if Path(entry.file).is_absolute() or ".." in Path(entry.file).parts:
                raise CaseError("expected a path inside the case, such as 0/U")
            if entry.file not in dictionaries:
                dictionaries[entry.file] = FoamDictionary(directory / entry.file, entry.file)
            dictionaries[entry.file].check(entry.entry)
        except CaseError as error:
            problems.append(f"{place}: file = {entry.file!r}: {error.reason}{_other_files(directory, entry.file)}")
        try:
            entry.text(1.0)
        except ValueError as error:
            problems.append(
                f"{place}: value = {entry.value!r} cannot be used ({error}); expected a format in which {{}} stands for the "
                'parameter, such as "uniform ({} 0 0)"'
            )
    return dictionaries, problems


def _other_files(directory: Path, file: str) -> str:
    folder = (directory / file).parent
    if (directory / file).is_file() or not folder.is_dir():
        return ""
    names = sorted(child.name for child in folder.iterdir() if child.is_file())
    return f"; {Path(file).parent}/ has: {', '.join(names)}" if names else ""


def make_case(
    template: Path,
    directory: Path,
    settings: CaseSettings,
    dictionaries: Mapping[str, FoamDictionary],
    parameters: Mapping[str, float],
) -> None:
    """Make the case of one simulation in an empty folder: a copy of the prepared template with the parameters set.

    Raises:
        CaseError: a parameter of the study is missing from `parameters`.
    """
    link = () if settings.mesh_each else _LINKED
    for child in template.iterdir():
        if child.is_file() and child.name not in dictionaries:
            (directory / child.name).symlink_to(child)  # meshes and tables beside the case; only read
        else:
            copy(child, directory / child.name, link)
    for name, entry in settings.entries.items():
        if name not in parameters:
            raise CaseError(
                f"[solver.entries] {name}: the simulation has no such parameter, only {', '.join(parameters)}"
            )
        dictionaries[entry.file].set(entry.entry, entry.text(parameters[name]))
    for file, dictionary in dictionaries.items():
        dictionary.write(directory / file)


def add_control(directory: Path, control: Control, settings: CaseSettings, library: Path | None) -> None:
    """Append to a simulation's controlDict: stream the fields, write no time folder, start at the start time.

    OpenFOAM merges dictionaries and lets the last of two entries win, so the user's text stays as it is.

    Args:
        directory: the simulation's case.
        control: what its controlDict says.
        settings: the fields to stream, and how often.
        library: the function object's library; not needed when nothing is streamed or the case streams already.
    """
    lines = [
        "",
        "// Added by Penstock: fields leave through memory, never through time folders.",
        "startFrom       startTime;",
        f"startTime       {control.start};",
        "writeControl    timeStep;",
        f"writeInterval   {NEVER};",
        "purgeWrite      0;",
        "runTimeModifiable no;",
    ]
    if settings.fields and not control.streams:
        lines += [
            "functions",
            "{",
            "    penstock",
            "    {",
            f"        type            {FUNCTION_OBJECT};",
            f'        libs            ("{library}");',
            f"        fields          ({' '.join(settings.fields)});",
            f"        executeInterval {settings.every};",
            "    }",
            "}",
        ]
    with (directory / "system" / "controlDict").open("a", encoding="utf-8") as file:
        file.write("\n".join([*lines, ""]))


def add_decomposition(directory: Path, ranks: int) -> None:
    """Have the case cut into `ranks` parts: as its own decomposeParDict says if it is for as many, else along x."""
    path = directory / "system" / "decomposeParDict"
    if path.is_file() and str(FoamDictionary(path).get("numberOfSubdomains")) == str(ranks):
        return
    header = "FoamFile { version 2.0; format ascii; class dictionary; object decomposeParDict; }\n"
    path.unlink(missing_ok=True)
    path.write_text(
        f"{header}numberOfSubdomains {ranks};\nmethod simple;\nsimpleCoeffs {{ n ({ranks} 1 1); delta 0.001; }}\n",
        encoding="utf-8",
    )
