"""A run directory is its user's alone: study.toml names code that Penstock runs."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from other_user import STRANGER, VICTIM, as_user, needs_root
from penstock.run import expect_own, hold
from penstock.study import StudyError

Penstock = Callable[..., Any]
STUDY = 'study = { name = "mine" }\nparameters = { a = [1.0, 2.0] }\nsolver = { adapter = "evil:Solver", simulations = 1 }\n'


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def test_a_new_run_directory_is_closed_whatever_the_umask(tmp_path: Path) -> None:
    directory = tmp_path / "runs" / "heat-1"
    with hold(directory):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    expect_own(directory)  # files in it may have any mode


@pytest.mark.parametrize("which", [".", "study.toml", "checkpoints"])
def test_nothing_is_resumed_from_what_others_may_write(which: str, tmp_path: Path, penstock: Penstock) -> None:
    run = tmp_path / "a run"
    (run / "checkpoints").mkdir(parents=True, mode=0o755)
    run.chmod(0o755)
    (run / "study.toml").write_text(f'{STUDY}fields = {{ u = {{}} }}\ndirectory = "{tmp_path}"\n')
    (run / "study.toml").chmod(0o644)
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (run / which).chmod(0o775 if which != "study.toml" else 0o664)
    for command in ("resume", "export"):
        done = penstock(command, run)
        assert done.code == 2
        assert done.err.startswith(f"{run if which == '.' else run / which}: other users may write it (mode ")
        assert done.err.endswith(f"run: chmod -R go-w {shlex.quote(str(run))}\n")
    assert not (tmp_path / "ran").exists()
    (run / which).chmod(0o755 if which != "study.toml" else 0o644)
    expect_own(run)


def test_a_folder_given_with_out_that_others_may_write_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "out"
    directory.mkdir(mode=0o777)
    with pytest.raises(StudyError, match="other users may write it"), hold(directory):
        raise AssertionError("held")


@needs_root
def test_another_user_neither_reads_nor_changes_a_run(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents[:-2]:
        if parent.stat().st_uid == 0 and parent.stat().st_mode & 0o011 != 0o011:
            parent.chmod(parent.stat().st_mode | 0o011)
    directory = tmp_path / "heat-1"

    def begin() -> None:
        with hold(directory):
            for name in ("study.toml", "keys.json", "connect.json"):
                (directory / name).write_text("secret")

    assert as_user(VICTIM, begin) == "None"
    for name in ("study.toml", "keys.json", "connect.json"):
        path = directory / name
        assert "PermissionError" in as_user(STRANGER, path.read_text)
        assert "PermissionError" in as_user(STRANGER, lambda path=path: path.write_text("mine"))
    assert "belongs to user" in as_user(STRANGER, lambda: expect_own(directory))
