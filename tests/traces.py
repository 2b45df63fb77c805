"""What one study has on this machine: processes, folders, shared memory, logs. Others may run beside it, and are not looked at."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from penstock_server.engines.ray.leftovers import OWNER_FILE, PREFIX

MARK = "PENSTOCK_TEST_STUDY"  # an environment variable, which all processes of a study inherit
PATIENCE = 60.0  # seconds that a study's last processes may take to end
SHARED_MEMORY = Path("/dev/shm")


def processes_with(variable: str, value: str) -> list[psutil.Process]:
    """The running processes that have this environment variable; this one is left out."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            ours = process.pid != os.getpid() and process.environ().get(variable) == value
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def shared_memory() -> set[Path]:
    """The files of shared memory that exist now."""
    return {path for path in SHARED_MEMORY.iterdir() if path.is_file()}


def left_over(mark: str, directory: Path, before: set[Path], patience: float = PATIENCE) -> list[str]:
    """What is still there of a study that has ended, once it has had time to go.

    Args:
        mark: value of `MARK` in the environment in which the study was started.
        directory: its run directory.
        before: `shared_memory()` before it began.
        patience: seconds to wait until nothing is left.

    Returns:
        A line for each process, folder and file of shared memory.
    """
    deadline = time.monotonic() + patience
    while (left := _left(mark, directory, before)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def _left(mark: str, directory: Path, before: set[Path]) -> list[str]:
    left = []
    for process in processes_with(MARK, mark):
        with suppress(psutil.Error):
            # Without folders, for what is left over may be published.
            words = [Path(word).name for word in process.cmdline()[:4]]
            left.append(f"process {process.pid}: {' '.join(words)}")
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            if (folder / OWNER_FILE).read_text() == str(directory):
                left.append(str(folder))
    # Whose a file of shared memory is, nothing says; that no process holds it shows that somebody has left it.
    return left + [str(path) for path in sorted(shared_memory() - before) if not _held(path)]


def _held(path: Path) -> bool:
    """Whether some process has the file open or mapped, or it has gone meanwhile."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError):
                if str(path) in (process / "maps").read_text():
                    return True
                if any(str(link.readlink()) == str(path) for link in (process / "fd").iterdir()):
                    return True
    return not path.exists()


def last_lines(folder: Path, lines: int = 20) -> str:
    """The paths and last lines of all logs below a folder; what was written last comes last."""
    logs = [path for path in folder.rglob("*.log") if path.is_file() and path.stat().st_size]
    return "\n".join(
        "\n".join([f"{path}:", *(f"    {line}" for line in path.read_text(errors="replace").splitlines()[-lines:])])
        for path in sorted(logs, key=lambda path: path.stat().st_mtime)
    )
