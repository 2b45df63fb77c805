"""The folder for a Ray's temporary files: short, with room, and closed to other users of the machine.

Ray makes its own temporary folder and most folders below it writable for everyone, and reads from there at which ports
its processes listen. So that folder lies in a parent that only this user may enter.

On another node of a Slurm job `python -m penstock_server.engines.ray.ray_folder FOLDER PROGRAM ARGUMENT...` makes the
same parent, then becomes the program that starts Ray there. This file imports no Ray.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from penstock_client.errors import PenstockError
from penstock_server.engines.ray.leftovers import PREFIX

SOCKET_PATH_BYTES = 107
"""Longest path of a socket (unix(7))."""

NEEDED_BYTES = 64 * 2**20
"""Room for the logs of a Ray that has just started."""

_RAY_ADDS = len("/r/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.1")
_OURS = len("/" + PREFIX) + 8  # mkdtemp adds eight characters
LONGEST_ROOT = SOCKET_PATH_BYTES - _RAY_ADDS - _OURS
"""Longest path, in bytes, of a folder for temporary files in which Ray's sockets can be."""


class NoFolder(PenstockError):
    """There is no folder that Ray's temporary files could be in."""


def make_ray_folder() -> Path:
    """Make an empty folder that only this user may enter, in the first usable folder for temporary files.

    Raises:
        NoFolder: no folder is short enough, writable and has room.
    """
    refused = []
    for root in _roots():
        if trouble := _trouble(root):
            refused.append(f"{root} {trouble}")
            continue
        try:
            return Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))  # its mode is 0700
        except OSError as error:
            refused.append(f"{root} cannot be written ({error.strerror})")
    raise NoFolder(
        f"TMPDIR: there is no folder for Ray's temporary files: {'; '.join(refused)}: expected a folder with a path of "
        f"at most {LONGEST_ROOT} bytes, {NEEDED_BYTES >> 20} MiB of room and the right to write; set TMPDIR to one, "
        'or use engine = "inline", which needs none'
    )


def temporary(folder: Path) -> Path:
    """Return the folder to give to Ray, inside one of `make_ray_folder`."""
    return folder / "r"


def expect_private(folder: Path) -> None:
    """Check that only this user may enter a folder.

    Args:
        folder: the folder.

    Raises:
        NoFolder: it is a link, another user's, or open to others.
    """
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise NoFolder(
            f"{folder}: has mode {stat.filemode(found.st_mode)} and owner {found.st_uid}: expected a folder of mode "
            f"0700 of user {os.geteuid()}, since Ray's files there let others run code; have it removed"
        )


def _roots() -> Iterator[Path]:
    """Folders for temporary files, the user's choice first."""
    given = (os.environ.get(name) for name in ("TMPDIR", "XDG_RUNTIME_DIR"))
    chosen, runtime = (Path(text).absolute() if text else None for text in given)
    yield from dict.fromkeys(root for root in (chosen, Path("/tmp"), runtime, Path("/var/tmp")) if root is not None)


def _trouble(root: Path) -> str:
    """Say why Ray cannot use a folder; "" where it can."""
    length = len(os.fsencode(root))
    if length > LONGEST_ROOT:
        return f"is too long ({length} bytes)"
    try:
        free = shutil.disk_usage(root).free
    except OSError as error:
        return f"cannot be used ({error.strerror})"
    return f"is full ({free >> 20} MiB free)" if free < NEEDED_BYTES else ""


def main(folder: Path, command: Sequence[str]) -> None:
    """Make a folder that only this user may enter, unless it is there; then become the program of `command`."""
    folder.mkdir(mode=0o700, exist_ok=True)
    expect_private(folder)
    os.execvp(command[0], list(command))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
