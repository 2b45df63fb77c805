"""Which mesh commands run once on the template, and which for each simulation after its parameters are written.

A command runs once only if it is known to read none of the files that parameters set. Most mesh generators read their
own dictionaries and no fields. Any other command, a script or setFields or cp, may read every file of the case, so it
runs for each simulation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from penstock_solvers.openfoam.settings import LINKED, CaseSettings

RESTORE = ("restore", "0.orig")  # the step that copies 0.orig to 0
# Programs that read dictionaries under system/, geometry and meshes, and no fields.
_MESH_TOOLS = re.compile(
    r"blockMesh|snappyHexMesh|surface\w+|checkMesh|extrudeMesh|mirrorMesh|foamyHexMesh|foamyQuadMesh|cartesianMesh|"
    r"cartesian2DMesh|tetMesh|pMesh|zeroMesh|\w+(MeshTo|To)Foam|PDRblockMesh"
)
# Further programs that change the mesh, and would fail on fields for the mesh as it will be.
_BEFORE_FIELDS = re.compile(
    r"topoSet|setSet|createBaffles|createPatch|mergeMeshes|stitchMesh|refineMesh|transformPoints|renumberMesh|"
    r"autoPatch|collapseEdges|mergeOrSplitBaffles|subsetMesh|splitBaffles"
)
# They map the fields to the meshes of regions. Where 0.orig has a folder for each region, there is nothing to map.
_REGIONS = re.compile(r"splitMeshRegions|extrudeToRegionMesh")
# Further programs that make no entries in dictionaries.
_NO_NEW_ENTRIES = re.compile(
    r"topoSet|setSet|refineMesh|transformPoints|renumberMesh|setFields|mapFields|potentialFoam"
)
# Files under system/ that mesh generators do not read.
_NOT_OF_THE_MESH = {"controlDict", "fvSchemes", "fvSolution", "fvOptions", "decomposeParDict"}


def steps(settings: CaseSettings, case: Path, start: str) -> tuple[tuple[str, ...], ...]:
    """List the mesh commands, with the copying of 0.orig to 0 at its place.

    It comes before the first command that works on fields, and after those that change the mesh. splitMeshRegions and
    extrudeToRegionMesh work on fields if 0.orig has some that are of no region. A command that names 0.orig replaces it.

    Args:
        settings: settings of the case.
        case: the case, or a copy of it.
        start: name of the folder of the start time.

    Returns:
        The steps in order: commands, and RESTORE where the case needs it.
    """
    commands = settings.mesh_commands
    named = any("0.orig" in argument for command in commands for argument in command)
    if named or (case / start).is_dir() or not (case / "0.orig").is_dir():
        return commands
    names = [Path(command[0]).name for command in commands]
    before = [_MESH_TOOLS, _BEFORE_FIELDS]
    if not any(path.is_file() for path in (case / "0.orig").iterdir()):
        before.append(_REGIONS)
    after = [i for i, name in enumerate(names) if not any(pattern.fullmatch(name) for pattern in before)]
    place = after[0] if after else len(commands)
    return (*commands[:place], RESTORE, *commands[place:])


def steps_once(settings: CaseSettings, case: Path, start: str) -> int:
    """Count the leading steps that no parameter can reach, which run once on the template.

    Args:
        settings: settings of the case.
        case: the case, or a copy of it.
        start: name of the folder of the start time.

    Returns:
        The number of steps.
    """
    files = {Path(target.file) for targets in settings.entries.values() for target in targets}
    reached = _with_includers(files, case)
    for number, step in enumerate(steps(settings, case, start)):
        if _reads(step, reached):
            return number
    return len(steps(settings, case, start))


def makes_entries(command: Sequence[str]) -> bool:
    """Whether a mesh command may make files, or entries in them, outside of the mesh."""
    return not (_MESH_TOOLS.fullmatch(command[0]) or _NO_NEW_ENTRIES.fullmatch(command[0]))


def _reads(step: tuple[str, ...], files: set[Path]) -> bool:
    if step == RESTORE:
        return any(file.parts[0] == "0.orig" for file in files)
    if _MESH_TOOLS.fullmatch(step[0]) is None:
        return bool(files)
    return any(_shapes_mesh(file) or any(file.name in argument for argument in step[1:]) for file in files)


def _shapes_mesh(file: Path) -> bool:
    if file.parts[0] == "system":
        return file.name not in _NOT_OF_THE_MESH
    return bool(LINKED.intersection(file.parts)) or len(file.parts) == 1


def _with_includers(files: set[Path], case: Path) -> set[Path]:
    """Add the files that include one of `files`, and those that include them."""
    includes: dict[Path, set[str]] = {}
    for path in case.rglob("*"):
        if path.is_file() and path.stat().st_size < 1_000_000 and not LINKED.intersection(path.parts):
            names = re.findall(rb'#\s*\w*include\w*\s*[<"]([^">]+)', path.read_bytes(), re.I)
            if names:
                includes[path.relative_to(case)] = {Path(name.decode("utf-8", "replace")).name for name in names}
    reached = set(files)
    while more := {p for p, names in includes.items() if p not in reached and names & {f.name for f in reached}}:
        reached |= more
    return reached
