"""Check the syntax of the function object against the sources of an OpenFOAM, without building that OpenFOAM.

    python tests/solver_adapters/openfoam/check_syntax.py OpenFOAM-13 OpenFOAM-v2512

Each argument is a folder with OpenFOAM's src/. Prints a line for each; the exit code is 1 if one of them has errors.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from penstock_solvers.openfoam.build import sources

LIBRARIES = ("OpenFOAM", "OSspecific/POSIX", "finiteVolume", "meshTools", "surfMesh", "fileFormats")


def release_of(site: Path) -> str | None:
    """Return ESI's release number, such as "2406", or None for an OpenFOAM of the Foundation."""
    information = site / "META-INFO" / "api-info"
    api = re.search(r"^api=(\d+)", information.read_text(), re.M) if information.is_file() else None
    return api[1] if api else None


def link_headers(library: Path, folder: Path) -> None:
    """Fill a folder with links to the sources of one library, as OpenFOAM's wmakeLnInclude does."""
    folder.mkdir(parents=True)
    for path in library.rglob("*"):
        if path.suffix in (".H", ".C", ".txx", ".cxx", ".hxx") and not {"Make", "lnInclude"} & set(path.parts):
            link = folder / path.name
            if not link.is_symlink():
                link.symlink_to(path)


def errors_of(site: Path, release: str | None) -> list[str]:
    """Compile the C++ sources of the function object against an OpenFOAM; returns the compiler's lines with errors."""
    files = sources()
    client = next(file.parent for file in files if file.name == "penstock.h")
    with tempfile.TemporaryDirectory(prefix="penstock-syntax-") as scratch:
        includes = []
        for name in LIBRARIES:
            folder = Path(scratch, name)
            link_headers(site.resolve() / "src" / name, folder)
            includes.append(f"-I{folder}")
        defines = ["-DWM_DP", "-DWM_LABEL_SIZE=32", "-DNoRepository", "-Dlinux64", "-DWM_ARCH_OPTION=64"]
        defines += [f"-DOPENFOAM={release}"] if release else []
        command = ["g++", "-std=c++17", "-fsyntax-only", "-ftemplate-depth-100", *defines, f"-I{client}", *includes]
        whole = Path(scratch, "whole.C")  # one file, because each would read the same headers
        whole.write_text("".join(f'#include "{file}"\n' for file in files if file.suffix == ".C"))
        done = subprocess.run([*command, whole], capture_output=True, text=True, check=False)
        lines = [line for line in done.stderr.splitlines() if "error:" in line]
        return lines or ([done.stderr] if done.returncode else [])


def main(arguments: Sequence[str]) -> int:
    """Check each folder that the command line names."""
    if not arguments:
        print(__doc__, file=sys.stderr)
        return os.EX_USAGE
    bad = 0
    for argument in arguments:
        site = Path(argument)
        release = release_of(site)
        errors = errors_of(site, release)
        kind = f"ESI v{release}" if release else "Foundation"
        print(f"{site.name} ({kind}): {'no errors' if not errors else f'{len(errors)} errors'}")
        print("".join(f"    {line}\n" for line in errors[:20]), end="")
        bad += bool(errors)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
