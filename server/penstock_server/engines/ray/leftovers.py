"""What a Ray of ours may leave behind, and the guard that leaves nothing of it.

Run as `python -I -S leftovers.py FOLDER PID` in a session of its own, by the process PID that starts a Ray in FOLDER. Its standard input is
a pipe whose other end that process alone holds: when it closes, because the process is done or has died in whatever way, every
process of that Ray is killed and the folder removed. Ray sees to much of that itself, but not to all: its agents live on for a
minute, and the folder stays. The standard library is all this file imports.

A process belongs to a Ray of ours when it has a file in its folder open for writing, as all of them do (their logs). The folder's name is
random, and only we may write there; somebody who reads a log is let alone.

The guard of solver processes (`penstock_solvers.processes.guard`) finds processes by their session instead. The two cannot
share their loop: both run as scripts with `-I -S`, which imports no other module of Penstock.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

PREFIX = "penstock-ray-"
OWNER_FILE = "run-directory"  # in the folder: whose it is
RECORD_FILE = ".ray"  # in the run directory: where its folder is
PATIENCE = 20.0


def writers(folder: Path, spare: int | None = None) -> list[int]:
    """The processes but `spare` and this one that have a file below `folder` open for writing."""
    inside = f"{folder}/"
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) not in (spare, os.getpid()) and _writes(process, inside):
            found.append(int(process.name))
    return found


def _writes(process: Path, inside: str) -> bool:
    try:
        for link in (process / "fd").iterdir():
            try:
                if str(link.readlink()).startswith(inside) and _is_for_writing(process / "fdinfo" / link.name):
                    return True
            except FileNotFoundError:
                continue  # closed while we looked
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        pass  # ended while we looked, or somebody else's
    return False


def _is_for_writing(info: Path) -> bool:
    for line in info.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "flags":
            return int(value, 8) & os.O_ACCMODE != os.O_RDONLY
    return False


def end_writers(folder: Path, spare: int | None = None, patience: float = PATIENCE) -> list[int]:
    """Kill them, again until none is left, since one may start another while we look; returns those that could not be ended."""
    deadline = time.monotonic() + patience
    while found := writers(folder, spare):
        if time.monotonic() > deadline:
            return found
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.02)
    return []


def folder_of(directory: Path) -> Path | None:
    """The folder of the Ray that last served the study in this run directory; None unless it is there and provably this study's."""
    try:
        folder = Path((directory / RECORD_FILE).read_text())
        owned = not folder.is_symlink() and folder.stat().st_uid == os.getuid() and folder.name.startswith(PREFIX)
        return folder if owned and (folder / OWNER_FILE).read_text() == str(directory) else None
    except OSError:
        return None


def clean_up(directory: Path) -> list[int]:
    """End and remove what an earlier Ray left of the study in `directory`; returns the processes that could not be ended.

    The caller holds the run directory, so that whatever of that Ray still runs has outlived the process that began it.
    """
    folder = folder_of(directory)
    if folder is not None:
        if left := end_writers(folder):
            return left
        shutil.rmtree(folder, ignore_errors=True)
    (directory / RECORD_FILE).unlink(missing_ok=True)
    return []


def main(folder: Path, spare: int) -> None:
    """Wait for the other end of standard input to close; then nothing is left."""
    while os.read(0, 1):
        pass
    end_writers(folder, spare)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
