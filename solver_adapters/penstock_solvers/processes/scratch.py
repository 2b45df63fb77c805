"""A folder in memory that the workers of one machine share: a prepared template, and a folder per running simulation.

    ROOT/KEY/lock              locked while anything here is created or removed
    ROOT/KEY/template/         prepared once; every worker that uses it holds a shared lock on it
    ROOT/KEY/simulation-*/     one running simulation; its worker holds a lock on it

The kernel releases the locks of a process when it ends, so a folder that nobody has locked is left over from a killed
worker and can be removed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from penstock_solvers.processes.task import SolverFailed

FURTHER_NAMES = 3  # for this user's folder, where the first name is taken by another user


def tmpfs_directory() -> Path:
    """Return a folder in memory (/dev/shm) if there is one, else the system's folder for temporary files."""
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())


def default_root() -> Path:
    """Return this user's folder for templates and running cases, in memory where possible.

    What lies there may be removed. So where another user has put something under its name, or may write into it, a
    further name is tried.

    Raises:
        SolverFailed: there is no folder that this user alone may write.
    """
    parent, user = tmpfs_directory(), os.geteuid()
    refused = []
    for name in (f"penstock-{user}", *(f"penstock-{user}-{n}" for n in range(1, FURTHER_NAMES + 1))):
        root = parent / name
        try:
            root.mkdir(mode=0o700, exist_ok=True)
            found = root.lstat()
        except OSError as error:
            refused.append(f"{root} cannot be made ({error.strerror})")
            continue
        if stat.S_ISDIR(found.st_mode) and found.st_uid == user and not found.st_mode & 0o077:
            return root
        refused.append(f"{root} has mode {stat.filemode(found.st_mode)} and owner {found.st_uid}")
    raise SolverFailed(
        f"no folder for the files of running simulations: {refused[0]}, and {FURTHER_NAMES} more like it: expected a "
        f"folder in {parent} that user {user} alone may write; have them removed, or see that {parent} has room"
    )


class Scratch:
    """One template and the simulations made from it, shared by all workers with the same key.

    Args:
        root: folder for the templates of several studies.
        key: name of the template; equal keys must mean equal templates.
        prepare: creates the template in a folder that does not exist yet; one worker calls it, under the lock. If it
            raises an error, nothing is kept.

    Attributes:
        template: folder of the template.
    """

    def __init__(self, root: Path, key: str, prepare: Callable[[Path], None]) -> None:
        _remove_unused(root)
        self._folder = root / key
        self.template = self._folder / "template"
        with _locked(self._folder / "lock"):
            self._sweep()
            if not self.template.is_dir():
                building = self._folder / "building"
                shutil.rmtree(building, ignore_errors=True)  # left over from a killed worker
                try:
                    prepare(building)
                except BaseException:
                    shutil.rmtree(self._folder)  # without a template, no worker uses this folder
                    raise
                building.rename(self.template)
            self._in_use = os.open(self.template, os.O_RDONLY)
            fcntl.flock(self._in_use, fcntl.LOCK_SH)

    def close(self) -> None:
        """Stop using the template. The last worker that does so removes it."""
        with _locked(self._folder / "lock"):
            os.close(self._in_use)
            _remove_if_unused(self._folder)

    @contextmanager
    def simulation(self, name: str) -> Iterator[Path]:
        """Create an empty folder for one simulation, and remove it afterwards.

        Args:
            name: part of the folder's name.

        Yields:
            The folder.
        """
        with _locked(self._folder / "lock"):
            folder = Path(tempfile.mkdtemp(prefix=f"simulation-{name}-", dir=self._folder))
            in_use = os.open(folder, os.O_RDONLY)
            fcntl.flock(in_use, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)
            os.close(in_use)

    def _sweep(self) -> None:
        for folder in self._folder.glob("simulation-*"):
            if not _is_locked(folder):
                shutil.rmtree(folder)


def _is_locked(path: Path) -> bool:
    """Return whether a process holds a lock on a folder or file."""
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _remove_if_unused(folder: Path) -> None:
    """Remove a template's whole folder if no worker uses it. The caller holds its lock."""
    template = folder / "template"
    if not template.is_dir() or not _is_locked(template):
        shutil.rmtree(folder)


def _remove_unused(root: Path) -> None:
    """Remove the folders of studies whose workers have all been killed."""
    for lock in root.glob("*/lock"):
        try:
            if _is_locked(lock):
                continue  # a worker is preparing the template
            with _locked(lock):
                _remove_if_unused(lock.parent)
        except FileNotFoundError:
            continue  # another worker has removed it


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock file, created if necessary.

    The holder may remove the file, so after locking it is checked that the file is still the one at `path`.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("a")
        except FileNotFoundError:
            continue  # the folder has been removed meanwhile
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                yield
                return
