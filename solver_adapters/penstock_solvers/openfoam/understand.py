"""What OpenFOAM understands by a value that holds macros or directives."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from penstock_client.errors import PenstockError
from penstock_solvers.openfoam.dictionary import FoamDictionary
from penstock_solvers.openfoam.environment import find_application, openfoam_environment
from penstock_solvers.openfoam.errors import CaseError
from penstock_solvers.openfoam.scan import Item, Kind

ASK_SECONDS = 120.0  # for one answer; code in a dictionary may have to be compiled


def understood(case: Path, dictionary: FoamDictionary, entry: str) -> str | None:
    """Read a value as OpenFOAM does: as it stands, or by foamDictionary where it is not plain text.

    Args:
        case: the case, which is not changed.
        dictionary: one of its files.
        entry: a keyword at the top of the file.

    Returns:
        The value's text; None if there is no such entry.

    Raises:
        CaseError: the value is not plain text, and foamDictionary cannot read it or is not installed.
    """
    text = dictionary.get(entry)
    if text is not None and not any(mark in text for mark in "$#"):
        return text.strip('"')
    if text is None and not takes_over(dictionary.items):
        return None
    try:
        environment = openfoam_environment()
        program = find_application("foamDictionary", environment)
    except PenstockError as error:
        if text is None:
            return None
        raise CaseError(f"{dictionary.place(entry)}: {entry} = {text} needs OpenFOAM to be read: {error}") from error
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for child in case.iterdir():  # foamDictionary may compile code, which it leaves in its working directory
            (folder / child.name).symlink_to(child.absolute())
        command = [str(program), "system/controlDict", "-entry", entry, "-value"]
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env=environment | {"PWD": str(folder)},
                capture_output=True,
                text=True,
                errors="replace",
                timeout=ASK_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CaseError(f"{dictionary.name}: foamDictionary did not read {entry}: {error}") from error
    if done.returncode == 0:
        return done.stdout.strip().strip('"')
    if text is None:
        return None  # foamDictionary finds none, either
    told = " ".join((done.stderr or done.stdout).split())[-400:]
    raise CaseError(f"{dictionary.place(entry)}: foamDictionary cannot read {entry} = {text}: {told}")


def takes_over(items: tuple[Item, ...]) -> bool:
    """Whether a dictionary has entries that are written elsewhere."""
    return any(i.kind is Kind.MACRO or (i.kind is Kind.DIRECTIVE and "include" in i.key) for i in items)
