"""The server's kernel as a library for tests."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from lacking import lacking
from penstock_server.native.library import FOLDER, LIBRARY


def compiled(folder: Path, *flags: str) -> Path:
    """Compile kernel.c without a warning."""
    if shutil.which("gcc") is None:
        lacking("needs gcc: `make system`")
    warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Wno-psabi", "-Werror"]
    command = ["gcc", *flags, "-std=c11", "-ffp-contract=off", "-fPIC", "-shared", *warnings]
    subprocess.run([*command, FOLDER / "kernel.c", "-o", folder / LIBRARY], check=True)
    return folder / LIBRARY
