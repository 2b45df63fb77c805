"""Where OpenFOAM is, and the environment its programs need."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from penstock_client.errors import PenstockError
from penstock_client.nearest import did_you_mean

DEBIAN = Path("/usr/share/openfoam")  # where Debian's and Ubuntu's package "openfoam" has its etc folder
INSTALL = "on Debian or Ubuntu: apt-get install openfoam; elsewhere install OpenFOAM and source its etc/bashrc first"


class OpenFOAMMissing(PenstockError):
    """OpenFOAM, or one of its programs, is not installed or its environment is not set."""


def openfoam_environment(base: Mapping[str, str] | None = None, packaged: Path = DEBIAN) -> dict[str, str]:
    """The environment for OpenFOAM programs: `base` (default: this process's), completed where that is needed.

    A site's own OpenFOAM, recognised by WM_PROJECT_DIR, is taken as it is. Without one, the distribution's package at
    `packaged` is used, whose programs lie on the usual PATH but need WM_PROJECT_DIR to find their etc/controlDict.

    Raises:
        OpenFOAMMissing: WM_PROJECT_DIR names no OpenFOAM, or there is none.
    """
    environment = dict(os.environ if base is None else base)
    site = environment.get("WM_PROJECT_DIR")
    if site:
        if not Path(site, "etc", "controlDict").is_file():
            raise OpenFOAMMissing(
                f"WM_PROJECT_DIR = {site!r} is not an OpenFOAM: it has no etc/controlDict; source OpenFOAM's etc/bashrc, "
                "or unset WM_PROJECT_DIR to use the system's package"
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


def find_application(name: str, environment: Mapping[str, str]) -> Path:
    """The path of an OpenFOAM program (a solver or a mesh tool) on the environment's PATH.

    Raises:
        OpenFOAMMissing: there is none of that name.
    """
    search = environment.get("PATH", os.defpath)
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
