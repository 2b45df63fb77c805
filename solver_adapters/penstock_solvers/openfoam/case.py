"""OpenFOAM cases as templates: copying them, adding the function object.

A user's case is never modified. The template is copied to a folder in memory, where the mesh commands run that no
parameter can reach. Each simulation gets its own copy, in which the mesh is a link unless more commands follow.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from penstock_solvers.openfoam.control import FUNCTION_OBJECT, Control, read_control, start_folder
from penstock_solvers.openfoam.dictionary import FoamDictionary, unzip
from penstock_solvers.openfoam.mesh_steps import steps, steps_once
from penstock_solvers.openfoam.settings import CaseSettings
from penstock_solvers.openfoam.times import is_time

__all__ = [
    "FUNCTION_OBJECT",
    "NEVER",
    "Control",
    "add_control",
    "add_decomposition",
    "copy",
    "copy_prepared",
    "copy_template",
    "read_control",
    "template_key",
]

NEVER = 1_000_000_000  # time steps between two writes of the fields; OpenFOAM's label may be a 32 bit integer
_LEFT_OUT = re.compile(r"processor\d+|processors\d+.*|postProcessing|VTK|dynamicCode|log\..*|.*\.foam|\..*")


def _parts(case: Path, start: str) -> Iterator[tuple[Path, str]]:
    """Yield the parts of a case that belong to its template, without results and logs, and their names there."""
    for child in sorted(case.iterdir()):
        result = child.is_dir() and is_time(child.name) and child.name != start
        if not result and not _LEFT_OUT.fullmatch(child.name):
            yield child, child.name


def copy(source: Path, target: Path, link: Collection[str] = ()) -> None:
    """Copy a file or folder. Of its permissions, only that to run a file is kept.

    Args:
        source: the file or folder.
        target: path of the copy. A folder that exists gets the files in addition to its own, such as the 0 that
            splitMeshRegions has made.
        link: names of files and folders that become links to the originals.
    """
    if source.name in link:
        target.symlink_to(source)
    elif source.is_dir():
        target.mkdir(exist_ok=True)
        for child in source.iterdir():
            copy(child, target / child.name, link)
    else:
        shutil.copyfile(source, target)
        if source.stat().st_mode & 0o111:
            target.chmod(0o755)


def copy_template(case: Path, start: str, target: Path) -> None:
    """Copy a user's case to a new folder and unpack its compressed dictionaries.

    Files in deeper folders stay compressed, because OpenFOAM reads them as they are.

    Args:
        case: the user's case.
        start: name of the folder of the start time.
        target: folder of the copy, which does not exist yet.
    """
    target.mkdir(parents=True)
    for part, name in _parts(case, start):
        copy(part, target / name)
    for folder in (target, target / start, target / "0.orig", target / "system", target / "constant"):
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
    meshed = steps(settings, settings.case, start)[: steps_once(settings, settings.case, start)]
    digest = hashlib.sha256(json.dumps([meshed, start, openfoam]).encode())
    for part, name in _parts(settings.case, start):
        for path in sorted(part.rglob("*")) if part.is_dir() else [part]:
            if path.is_file():
                digest.update(f"\0{name}/{path.relative_to(part)}\0".encode())
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def copy_prepared(template: Path, directory: Path, link: Collection[str], leave_out: Collection[str] = ()) -> None:
    """Copy a prepared template for one simulation.

    Args:
        template: folder of the prepared template.
        directory: an empty folder for the case.
        link: names of files and folders that become links to the template's, as do then files beside the folders.
        leave_out: names of files and folders that are not copied.
    """
    for child in template.iterdir():
        if link and child.is_file():
            (directory / child.name).symlink_to(child)  # meshes and tables, which are only read
        elif child.name not in leave_out:
            copy(child, directory / child.name, link)


def add_control(directory: Path, control: Control, settings: CaseSettings, library: Path | None) -> None:
    """Append to a simulation's controlDict: stream the fields, write no time folders, start at the start time.

    If the run's end or the streaming hangs on write times, the case's own stay, and only the last time folder is kept.
    OpenFOAM merges dictionaries, and the last of two equal entries wins, so the user's text is left unchanged.

    Args:
        directory: the simulation's case.
        control: settings of its controlDict.
        settings: settings of the case.
        library: path of the function object's library; None if nothing is streamed or the case has the function object.
    """
    start = control.start
    if control.start_from == "latestTime":
        start = start_folder(directory, control.start_from, None)  # a mesh command may have made a later one
    writing = (
        ["purgeWrite      1;"]
        if control.writes
        else ["writeControl    timeStep;", f"writeInterval   {NEVER};", "purgeWrite      0;"]
    )
    lines = [
        "",
        "// Added by Penstock: fields are streamed from memory, not written to time folders.",
        "startFrom       startTime;",
        f"startTime       {start};",
        *writing,
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
    if path.is_file() and FoamDictionary(path).get("numberOfSubdomains") == str(ranks):
        return
    header = "FoamFile { version 2.0; format ascii; class dictionary; object decomposeParDict; }\n"
    path.unlink(missing_ok=True)
    path.write_text(
        f"{header}numberOfSubdomains {ranks};\nmethod simple;\nsimpleCoeffs {{ n ({ranks} 1 1); delta 0.001; }}\n",
        encoding="utf-8",
    )
