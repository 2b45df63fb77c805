"""The run directory: made once for one study, held by one process at a time."""

from __future__ import annotations

import fcntl
import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from penstock.study import STUDY, StudyError, load_study, resolved, write_resolved
from penstock_client.atomic_file import replacing
from penstock_server.study import Study

REPORT, LOGS, LOCK = "report.json", "logs", ".lock"
CHANGEABLE = ("training.", "server.", "solver.concurrency")  # when a study is resumed


def default_directory(name: str) -> Path:
    """The first runs/<name>-<n> in the working directory that is not there yet."""
    return next(p for n in itertools.count(1) if not (p := Path("runs") / f"{name}-{n}").exists())


@contextmanager
def hold(directory: Path) -> Iterator[None]:
    """Hold a run directory: another process that tries meanwhile gets a StudyError. The kernel lets go when we die."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = (directory / LOCK).read_text().strip()
            raise StudyError(
                [f"{directory}: a study is running there (pid {pid}): wait for it, or stop it with `kill {pid}`"]
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def holder(directory: Path) -> int | None:
    """The process that holds a run directory, None when nobody does."""
    with suppress(FileNotFoundError), (directory / LOCK).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(file.read().strip() or 0)
    return None


def prepare(study: Study, directory: Path) -> None:
    """Write study.toml into a run directory that is new or empty.

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
    write_resolved(study, directory / STUDY)


def expect_changeable(overrides: Sequence[str]) -> None:
    """Raises StudyError for an override (table.key=value) of what a study that has begun is bound to."""
    for override in overrides:
        key = override.partition("=")[0].strip()
        if not key.startswith(CHANGEABLE):
            raise StudyError(
                [
                    f"--set {override}: a study that has begun is bound to its {key}: expected a key of [training] or [server], or "
                    "solver.concurrency; start another study with `penstock run`"
                ]
            )


def renew(study: Study, directory: Path) -> None:
    """Let study.toml say what the study goes on with."""
    if resolved(load_study(directory / STUDY)) != resolved(study):
        with replacing(directory / STUDY) as temporary:
            write_resolved(study, temporary)


def open_run(directory: Path) -> Study:
    """The study that a run directory holds. Raises StudyError where it is none."""
    if not (directory / STUDY).is_file():
        raise StudyError(
            [f"{directory}: is no run directory: expected {STUDY} in it; give what `penstock run` printed as its --out"]
        )
    return load_study(directory / STUDY)
