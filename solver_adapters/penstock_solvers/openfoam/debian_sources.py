"""Downloading parts of a Debian source package with apt, which checks the signatures.

apt works on a private copy of its state, so this needs no root and does not change the machine.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from penstock_client.errors import PenstockError

_APT = Path("/etc/apt")
# Debian 12's own Python, 3.11.2, has no filters yet; apt has checked who made the archive.
_FILTER: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


class SourcesMissing(PenstockError):
    """The source package is not available: no apt, no network, or the mirror does not have that version."""


def fetch_source(package: str, parts: Sequence[str], folder: Path, apt: Path = _APT) -> Path:
    """Download a source package (`name=version`) and unpack some of its folders.

    Args:
        package: name and version of the source package, as "name=version".
        parts: folders of the source tree to unpack, such as "src/OpenFOAM".
        folder: an existing folder to work in.
        apt: folder of the machine's apt configuration.

    Returns:
        The source tree, inside `folder`.

    Raises:
        SourcesMissing: the source package is not available; the text quotes apt and says what to do.
    """
    if shutil.which("apt-get") is None:
        raise SourcesMissing(f"apt-get is not on PATH: the sources of {package} cannot be fetched")
    options = _private_apt(apt, folder / "apt")
    for command in (["update"], ["source", "--download-only", package]):
        done = subprocess.run(
            ["apt-get", "--quiet=2", *options, *command],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SourcesMissing(
                f"apt cannot fetch the sources of {package}: {done.stdout[-2000:].strip()}\n"
                "check the network and that the sources in /etc/apt carry deb-src for the installed version "
                "(apt-get update; apt-get upgrade)"
            )
    archives = sorted(folder.glob("*.orig.tar.*"))
    if len(archives) != 1:
        raise SourcesMissing(f"the source package {package} has {len(archives)} upstream archives, expected 1")
    return _unpack(archives[0], parts, folder)


def _private_apt(apt: Path, private: Path) -> list[str]:
    """Return options with which apt-get reads source packages and writes only below `private`."""
    lists = private / "sources.list.d"
    for part in (lists, private / "state" / "lists" / "partial", private / "cache" / "archives" / "partial"):
        part.mkdir(parents=True)
    one_line = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*.list"))]
    for number, source in enumerate(file for file in one_line if file.is_file()):
        text = source.read_text(errors="replace")
        entries = re.findall(r"^\s*deb(?:-src)?\s.*$", text, re.M)
        sources = dict.fromkeys(re.sub(r"^\s*deb(-src)?\s", "deb-src ", entry) for entry in entries)
        (lists / f"{number}.list").write_text("\n".join([*sources, ""]))
    for source in sorted((apt / "sources.list.d").glob("*.sources")):
        text = re.sub(r"^Types:.*$", "Types: deb-src", source.read_text(errors="replace"), flags=re.M)
        (lists / source.name).write_text(text)
    empty = private / "sources.list"
    empty.touch()
    settings = {
        "Dir::Etc::SourceList": empty,
        "Dir::Etc::SourceParts": lists,
        "Dir::State": private / "state",
        "Dir::State::status": "/var/lib/dpkg/status",
        "Dir::Cache": private / "cache",
        "APT::Sandbox::User": "root",  # apt's unprivileged download user could not write here
    }
    return [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]


def _unpack(archive: Path, parts: Sequence[str], folder: Path) -> Path:
    with tarfile.open(archive) as tar:
        top = ""
        for member in tar:
            top, _, inside = member.name.partition("/")
            if any(inside == part or inside.startswith(f"{part}/") for part in parts):
                tar.extract(member, folder, **_FILTER)
    tree = folder / top
    missing = [part for part in parts if not (tree / part).is_dir()]
    if missing:
        raise SourcesMissing(f"{archive.name} has no {', '.join(missing)}: this OpenFOAM version is not supported")
    archive.unlink()
    return tree
