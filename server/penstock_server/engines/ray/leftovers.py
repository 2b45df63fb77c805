"""What a Ray of ours may leave behind, and the guard that removes it.

Run as `python -I -S leftovers.py FOLDER PID SECONDS` in a session of its own, by the process PID that starts a Ray in
FOLDER. Its standard input is a pipe whose other end that process alone holds: when it closes, because the process is
done or has died in whatever way, the guard kills every process of that Ray and removes the folder. Ray cleans up most
of that itself, but not all: its agents live on for a minute, and the folder stays. This file imports the standard
library only.

A process belongs to a Ray of ours when it has a file in its folder open for writing, as all of them do (their logs).
The folder's name is random, and only we may enter it; a process that only reads a log is left alone.

The guard of solver processes (`penstock_solvers.processes.guard`) finds processes by their session instead. The two
cannot share their loop: both run as scripts with `-I -S`, which imports no other module of Penstock.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import sys
import time
from pathlib import Path

PREFIX = "penstock-ray-"
"""Start of the folder's name."""

OWNER_FILE = "run-directory"
"""File in the folder: the run directory of its study."""

RECORD_FILE = ".ray"
"""File in the run directory: where its folder is."""


def writers(folder: Path, spare: int | None = None) -> list[int]:
    """Find the processes that have a file below a folder open for writing.

    Args:
        folder: the folder.
        spare: a process id to leave out, besides that of this process.

    Returns:
        Their process ids.
    """
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
                continue  # closed meanwhile
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        pass  # ended meanwhile, or another user's
    return False


def _is_for_writing(info: Path) -> bool:
    for line in info.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "flags":
            return int(value, 8) & os.O_ACCMODE != os.O_RDONLY
    return False


def end_writers(folder: Path, spare: int | None, timeout: float) -> list[int]:
    """Kill the processes that write below a folder, again until none is left, since one may start another meanwhile.

    Args:
        folder: the folder.
        spare: a process id to leave out, besides that of this process.
        timeout: seconds for all of them to end.

    Returns:
        Process ids of those that have not ended by then.
    """
    deadline = time.monotonic() + timeout
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
    """Find the folder of the Ray that last served the study in a run directory.

    Returns:
        The folder; None unless it exists and is provably this study's.
    """
    try:
        folder = Path((directory / RECORD_FILE).read_text())
        found = folder.lstat()
        private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
        owned = private and folder.name.startswith(PREFIX)
        return folder if owned and (folder / OWNER_FILE).read_text() == str(directory) else None
    except OSError:
        return None


def clean_up(directory: Path, timeout: float) -> list[int]:
    """End and remove what an earlier Ray has left of a study.

    Args:
        directory: the run directory, which the caller holds, so that whatever of that Ray still runs has outlived the
            process that started it.
        timeout: seconds for its processes to end.

    Returns:
        Process ids of those that could not be ended.
    """
    folder = folder_of(directory)
    if folder is not None:
        if left := end_writers(folder, None, timeout):
            return left
        shutil.rmtree(folder, ignore_errors=True)
    (directory / RECORD_FILE).unlink(missing_ok=True)
    return []


def main(folder: Path, spare: int, timeout: float) -> None:
    """Wait for the other end of standard input to close; then leave nothing of the Ray in `folder`."""
    while os.read(0, 1):
        pass
    end_writers(folder, spare, timeout)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
