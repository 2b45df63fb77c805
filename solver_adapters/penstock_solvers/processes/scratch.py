"""A folder in memory that the workers of one machine share: a prepared template, and a folder per running simulation.

    ROOT/KEY/lock              held while anything here is made or removed
    ROOT/KEY/template/         prepared once; every worker that uses it holds a shared lock on it
    ROOT/KEY/simulation-*/     one running simulation; its worker holds a lock on it

The kernel lets go of a lock when its process ends, however it ends: what nobody holds is left over and can be removed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from penstock_solvers.processes.program import SolverFailed, tmpfs_directory


def default_root() -> Path:
    """This user's folder for templates and running cases, in memory where there is a file system in memory.

    Raises:
        SolverFailed: the folder belongs to somebody else.
    """
    root = tmpfs_directory() / f"penstock-{os.geteuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    if root.stat().st_uid != os.geteuid():
        raise SolverFailed(f"{root} belongs to another user; have it removed")
    return root


class Scratch:
    """One template and the simulations made from it, shared by every worker that prepares the same key.

    Args:
        root: folder in which templates of several studies lie side by side.
        key: names the template; equal keys must mean equal templates.
        prepare: makes the template in a folder that does not exist yet; called by one worker, under the lock. If it
            raises, nothing is kept.
    """

    def __init__(self, root: Path, key: str, prepare: Callable[[Path], None]) -> None:
        _remove_unused(root)
        self._folder = root / key
        self.template = self._folder / "template"
        with _locked(self._folder / "lock"):
            self._sweep()
            if not self.template.is_dir():
                building = self._folder / "building"
                shutil.rmtree(building, ignore_errors=True)  # left by a worker that was killed
                try:
                    prepare(building)
                except BaseException:
                    shutil.rmtree(self._folder)  # no template, so nobody uses anything here
                    raise
                building.rename(self.template)
            self._in_use = os.open(self.template, os.O_RDONLY)
            fcntl.flock(self._in_use, fcntl.LOCK_SH)

    def close(self) -> None:
        """Stop using the template; the last one to do so removes everything."""
        with _locked(self._folder / "lock"):
            os.close(self._in_use)
            _remove_if_unused(self._folder)

    @contextmanager
    def simulation(self, name: str) -> Iterator[Path]:
        """An empty folder, removed afterwards."""
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
            if not _held(folder):
                shutil.rmtree(folder)


def _held(path: Path) -> bool:
    """Whether somebody holds a lock on a folder or file."""
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _remove_if_unused(folder: Path) -> None:
    """Remove a template's whole folder if no worker uses it; the caller holds its lock."""
    template = folder / "template"
    if not template.is_dir() or not _held(template):
        shutil.rmtree(folder)


def _remove_unused(root: Path) -> None:
    """Remove what studies whose workers were all killed have left."""
    for lock in root.glob("*/lock"):
        try:
            if _held(lock):
                continue  # somebody is preparing
            with _locked(lock):
                _remove_if_unused(lock.parent)
        except FileNotFoundError:
            continue  # another worker was quicker


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock file, made if need be; its holder may remove it, so that one got late is looked at again."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("a")
        except FileNotFoundError:
            continue  # the folder was removed in between
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                yield
                return
