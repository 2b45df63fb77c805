"""OpenFOAM cases as templates: copying them, setting the study's parameters, adding the function object.

A user's case is never modified. The template is copied to a folder in memory and meshed there once, unless a parameter
changes the mesh. Each simulation gets its own copy, in which the mesh is a link.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock_solvers.openfoam.dictionary import CaseError, FoamDictionary, unzip
from penstock_solvers.openfoam.settings import LINKED, CaseSettings

FUNCTION_OBJECT = "penstockStream"
NEVER = 1_000_000_000  # time steps between two writes of the fields; OpenFOAM's label may be a 32 bit integer
_LEFT_OUT = re.compile(r"processor\d+|processors\d+.*|postProcessing|VTK|dynamicCode|log\..*|.*\.foam|\..*|0\.orig")
_TIME = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")  # name of a time folder


@dataclass(frozen=True)
class Control:
    """The settings that are read from a case's controlDict.

    Attributes:
        application: name of the solver program.
        start: name of the folder of the start time.
        streams: True if the case has a function object `penstockStream` of its own.
    """

    application: str
    start: str
    streams: bool


def read_control(settings: CaseSettings) -> Control:
    """Read a template's controlDict.

    Args:
        settings: settings of the case.

    Returns:
        The settings that the controlDict contains.

    Raises:
        CaseError: the case, its controlDict or the folder of the start time does not exist.
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
        f"[solver] case = '{case}' has no folder {time:g} with the initial fields, but its controlDict has "
        f"startTime = {time:g}; add the folder or change startTime"
    )


def _parts(case: Path, start: str) -> Iterator[tuple[Path, str]]:
    """Yield the parts of a case that belong to its template, without results and logs, and their names there."""
    for child in sorted(case.iterdir()):
        result = child.is_dir() and _TIME.fullmatch(child.name) and child.name != start
        if not result and not _LEFT_OUT.fullmatch(child.name):
            yield child, child.name
    if not (case / start).is_dir():
        yield case / "0.orig", start


def copy(source: Path, target: Path, link: Collection[str] = ()) -> None:
    """Copy a file or folder without its permissions.

    Args:
        source: the file or folder.
        target: path of the copy, which does not exist yet.
        link: names of files and folders that become links to the originals.
    """
    if source.name in link:
        target.symlink_to(source)
    elif source.is_dir():
        target.mkdir()
        for child in source.iterdir():
            copy(child, target / child.name, link)
    else:
        shutil.copyfile(source, target)


def copy_template(case: Path, start: str, target: Path) -> None:
    """Copy a user's case to a new folder and unpack its compressed dictionaries.

    If the initial fields are in 0.orig, the copy has a folder 0. Files in deeper folders stay compressed, because
    OpenFOAM reads them as they are.

    Args:
        case: the user's case.
        start: name of the folder of the start time.
        target: folder of the copy, which does not exist yet.
    """
    target.mkdir(parents=True)
    for part, name in _parts(case, start):
        copy(part, target / name)
    for folder in (target, target / start, target / "system", target / "constant"):
        for file in folder.glob("*.gz"):
            unzip(file)


def template_key(settings: CaseSettings, start: str, openfoam: str) -> str:
    """Return a name that is equal for equal prepared templates.

    Args:
        settings: settings of the case.
        start: name of the folder of the start time.
        openfoam: folder of the OpenFOAM that makes the mesh.

    Returns:
        Hexadecimal digits of a hash of the case's files, the mesh commands and the other arguments.
    """
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
    """Read the dictionaries that the study's parameters are written to, and check the entries.

    Args:
        settings: settings of the case.
        directory: a copy of the template (see `copy_template`).

    Returns:
        The dictionaries by file, and one line per problem.
    """
    dictionaries: dict[str, FoamDictionary] = {}
    problems = [
        f"[parameters] {name} goes nowhere: expected an entry {name} = {{ file = ..., entry = ... }} in "
        "[solver.entries]"
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
                f"{place}: value = {entry.value!r} cannot be used ({error}); expected a format in which {{}} stands "
                'for the parameter, such as "uniform ({} 0 0)"'
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
    """Create the case of one simulation: a copy of the prepared template with the parameters set.

    Args:
        template: folder of the prepared template.
        directory: an empty folder for the case.
        settings: settings of the case.
        dictionaries: the dictionaries that parameters are written to, by file.
        parameters: parameter values, by name.

    Raises:
        CaseError: a parameter of the study is missing from `parameters`.
    """
    link = () if settings.mesh_each else LINKED
    for child in template.iterdir():
        if child.is_file() and child.name not in dictionaries:
            (directory / child.name).symlink_to(child)  # meshes and tables, which are only read
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
    """Append to a simulation's controlDict: stream the fields, write no time folders, start at the start time.

    OpenFOAM merges dictionaries, and the last of two equal entries wins, so the user's text is left unchanged.

    Args:
        directory: the simulation's case.
        control: settings of its controlDict.
        settings: settings of the case.
        library: path of the function object's library; None if nothing is streamed or the case has the function object.
    """
    lines = [
        "",
        "// Added by Penstock: fields are streamed from memory, not written to time folders.",
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
            f"        fields          ({' '.join(map(_word, settings.fields))});",
            f"        executeInterval {settings.every};",
            "        errors          strict;",
            *(["        sendLast        true;"] if settings.last else []),
            *([f"        region          {settings.region};"] if settings.region else []),
            "    }",
            "}",
        ]
    with (directory / "system" / "controlDict").open("a", encoding="utf-8") as file:
        file.write("\n".join([*lines, ""]))


def _word(name: str) -> str:
    """Return a field's name as OpenFOAM reads it: a colon, as in heater:T, needs quotes."""
    return f'"{name}"' if ":" in name else name


def add_decomposition(directory: Path, ranks: int) -> None:
    """Write a decomposeParDict that cuts the case along x, unless the case has one for as many ranks.

    Args:
        directory: the simulation's case.
        ranks: number of parts.
    """
    path = directory / "system" / "decomposeParDict"
    if path.is_file() and str(FoamDictionary(path).get("numberOfSubdomains")) == str(ranks):
        return
    header = "FoamFile { version 2.0; format ascii; class dictionary; object decomposeParDict; }\n"
    path.unlink(missing_ok=True)
    path.write_text(
        f"{header}numberOfSubdomains {ranks};\nmethod simple;\nsimpleCoeffs {{ n ({ranks} 1 1); delta 0.001; }}\n",
        encoding="utf-8",
    )
