"""Finding OpenFOAM and the environment variables that its programs need."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from penstock_client.errors import PenstockError
from penstock_client.nearest import did_you_mean

DEBIAN = Path("/usr/share/openfoam")  # parent of the etc folder in the package "openfoam" of Debian and Ubuntu
INSTALL = "on Debian or Ubuntu: apt-get install openfoam; elsewhere install OpenFOAM and source its etc/bashrc first"


class OpenFOAMMissing(PenstockError):
    """OpenFOAM or one of its programs is not installed, or its environment is not set."""


def openfoam_environment(base: Mapping[str, str] | None = None, packaged: Path = DEBIAN) -> dict[str, str]:
    """Return the environment for OpenFOAM programs.

    If `base` sets WM_PROJECT_DIR, that OpenFOAM is used. Otherwise the distribution's package is used: its programs are
    on the usual PATH, but need WM_PROJECT_DIR to find their etc/controlDict.

    Args:
        base: the environment to start from; default: this process's.
        packaged: folder of the distribution's package.

    Returns:
        `base` with the variables that were missing.

    Raises:
        OpenFOAMMissing: WM_PROJECT_DIR is not an OpenFOAM, or no OpenFOAM is installed.
    """
    environment = dict(os.environ if base is None else base)
    site = environment.get("WM_PROJECT_DIR")
    if site:
        if not Path(site, "etc", "controlDict").is_file():
            raise OpenFOAMMissing(
                f"WM_PROJECT_DIR = {site!r} is not an OpenFOAM: it has no etc/controlDict; source OpenFOAM's "
                "etc/bashrc, or unset WM_PROJECT_DIR to use the system's package"
            )
        return environment
    if not (packaged / "etc" / "controlDict").is_file():
        raise OpenFOAMMissing(f"OpenFOAM is not installed, or its environment is not set; {INSTALL}")
    environment |= {"WM_PROJECT": "OpenFOAM", "WM_PROJECT_DIR": str(packaged)}
    bashrc = packaged / "etc" / "bashrc"
    version = re.search(r"^export WM_PROJECT_VERSION=(\S+)", bashrc.read_text(), re.M) if bashrc.is_file() else None
    if version:
        environment.setdefault("WM_PROJECT_VERSION", version[1])
    return environment


def find_application(name: str, environment: Mapping[str, str], case: Path | None = None) -> Path:
    """Find an OpenFOAM program (a solver or a mesh tool), or a script of the case.

    Args:
        name: name of the program, or path of a script, such as "./Allrun.pre".
        environment: the environment whose PATH is searched.
        case: the folder in which the program will run, where relative paths begin.

    Returns:
        Path of the program.

    Raises:
        OpenFOAMMissing: there is no program of that name.
    """
    search = environment.get("PATH", os.defpath)
    if case is not None and "/" in name:
        script = case / name
        if script.is_file() and os.access(script, os.X_OK):
            return script
        trouble = "is not executable; run chmod +x on it" if script.is_file() else "is not in the case"
        raise OpenFOAMMissing(f"{name!r} {trouble}")
    found = shutil.which(name, path=search)
    if found is not None:
        return Path(found)
    mesher = shutil.which("blockMesh", path=search)
    if mesher is None:
        raise OpenFOAMMissing(f"{name!r} is not installed, and neither is blockMesh: OpenFOAM is missing; {INSTALL}")
    folders = {Path(mesher).parent, *(Path(environment[k]) for k in ("FOAM_USER_APPBIN",) if environment.get(k))}
    installed = sorted({program.name for folder in folders if folder.is_dir() for program in folder.iterdir()})
    hint = did_you_mean(name, installed)
    raise OpenFOAMMissing(
        f"{name!r} is not an installed program{'; ' if hint else ''}{hint} (OpenFOAM's programs are in "
        f"{Path(mesher).parent}; put the folder of your own on PATH)"
    )
