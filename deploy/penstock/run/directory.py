"""The run directory: made once for one study, held by one process at a time."""

from __future__ import annotations

import fcntl
import itertools
import os
import shlex
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from penstock.study import STUDY, StudyError, is_file, load_study, resolved, write_resolved
from penstock_client.atomic_file import replacing
from penstock_server.study import Study, StudyChanged, changeable, changeable_keys, expect_same_study

LOGS, LOCK = "logs", ".lock"


def default_directory(name: str) -> Path:
    """Choose the first runs/<name>-<n> in the working directory that does not exist yet."""
    return next(p for n in itertools.count(1) if not (p := Path("runs") / f"{name}-{n}").exists())


@contextmanager
def hold(directory: Path) -> Iterator[None]:
    """Hold a run directory, which is made where it does not exist. The kernel releases it when this process dies.

    Raises:
        StudyError: another process holds it, or it cannot be made or written.
    """
    with _open_lock(directory) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = (directory / LOCK).read_text().strip()
            raise StudyError(
                [f"{directory}: a study is running there (pid {pid}): wait for it, or stop it with `kill {pid}`"]
            ) from None
        with _written(directory):
            file.truncate(0)
            file.write(f"{os.getpid()}\n".encode())
        yield


def _open_lock(directory: Path) -> FileIO:
    with _written(directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    expect_own(directory)
    with _written(directory):
        return (directory / LOCK).open("a+b", buffering=0)


def expect_own(directory: Path) -> None:
    """Check that nobody else may write into a run directory: its study.toml names code that Penstock runs.

    Args:
        directory: an existing folder.

    Raises:
        StudyError: it is another user's, or others may write it or a file in it.
    """
    found = directory.stat()
    if found.st_uid != os.geteuid() != 0:
        raise StudyError([f"{directory}: belongs to user {found.st_uid}: expected a run directory of your own"])
    if not found.st_mode & 0o077:
        return  # nobody else reaches what is in it
    for path in (directory, *sorted(directory.iterdir())):
        mode = path.lstat().st_mode
        if mode & 0o022 and not stat.S_ISLNK(mode):
            raise StudyError(
                [
                    f"{path}: other users may write it (mode {stat.filemode(mode)}), and so have Penstock run code of "
                    f"theirs: expected a run directory that you alone may write; if you trust what it holds, "
                    f"run: chmod -R go-w {shlex.quote(str(directory))}"
                ]
            )


@contextmanager
def _written(directory: Path) -> Iterator[None]:
    """Name the run directory where writing into it fails."""
    try:
        yield
    except OSError as error:
        raise StudyError(
            [
                f"{directory}: cannot be made or written as a run directory ({error.strerror}): expected a folder "
                "with room that this user may write; choose another --out"
            ]
        ) from error


def holder(directory: Path) -> int | None:
    """The id of the process that holds a run directory; None when no process does."""
    with suppress(FileNotFoundError), (directory / LOCK).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(file.read().strip() or 0)
    return None


def prepare(study: Study, directory: Path) -> None:
    """Write study.toml into a run directory that is new or empty.

    Args:
        study: the study that will run in it.
        directory: an existing folder.

    Raises:
        StudyError: it holds a study already, this one or another, or anything else.
    """
    others = [path.name for path in directory.iterdir() if path.name != LOCK]
    if (directory / STUDY).is_file():
        held = load_study(directory / STUDY)
        which = "this study" if resolved(held) == resolved(study) else f"another study ({held.study.name})"
        raise StudyError(
            [
                f"--out {directory}: holds {which} already; expected a new or empty folder: "
                f"continue it with `penstock resume {directory}`, or choose another --out"
            ]
        )
    if others:
        raise StudyError(
            [
                f"--out {directory}: holds {len(others)} files of something else ({others[0]}, ...); "
                "expected a new or empty folder: choose another --out"
            ]
        )
    with _written(directory):
        write_resolved(study, directory / STUDY)


def expect_changeable(overrides: Sequence[str]) -> None:
    """Check that overrides change only what a study that has begun may change.

    Args:
        overrides: "table.key=value" each.

    Raises:
        StudyError: an override names another key.
    """
    for override in overrides:
        key = override.partition("=")[0].strip()
        if not changeable(key):
            raise StudyError(
                [
                    f"--set {override}: a study that has begun is bound to its {key}: expected a key of "
                    f"{changeable_keys()}; start another study with `penstock run`"
                ]
            )


def renew(study: Study, directory: Path) -> None:
    """Write the study that is resumed to study.toml, where it differs from what that file holds.

    Raises:
        StudyError: it differs from the study of the last checkpoint in a key that cannot change.
    """
    from penstock_server.checkpoint import read_last
    from penstock_server.trainer_rank import CHECKPOINTS

    if (before := read_last(directory / CHECKPOINTS, "study")) is not None:
        try:
            expect_same_study(before, study)
        except StudyChanged as error:
            raise StudyError([f"{directory / STUDY}: {error}"]) from error
    if resolved(load_study(directory / STUDY)) != resolved(study):
        with replacing(directory / STUDY) as temporary:
            write_resolved(study, temporary)


def open_run(directory: Path) -> Study:
    """Read the study of a run directory.

    Raises:
        StudyError: the folder is no run directory, or its study.toml cannot be read.
    """
    if not is_file(directory / STUDY):
        raise StudyError(
            [f"{directory}: is no run directory: expected {STUDY} in it; give what `penstock run` printed as its --out"]
        )
    return load_study(directory / STUDY)
