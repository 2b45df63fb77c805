"""The folder of running simulations is this user's alone, whatever another user has put in its place."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from other_user import STRANGER, VICTIM, as_user, needs_root
from penstock_solvers.processes import Scratch, SolverFailed, default_root, scratch


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that everyone may write, as /dev/shm."""
    folder = tmp_path / "shm"
    folder.mkdir()
    folder.chmod(0o1777)
    for parent in (tmp_path, *tmp_path.parents[:-2]):
        if parent.stat().st_uid == os.geteuid():
            parent.chmod(parent.stat().st_mode | 0o011)
    monkeypatch.setattr(scratch, "tmpfs_directory", lambda: folder)
    return folder


def precious(folder: Path) -> Path:
    """A folder of the user's that looks like one of a killed worker."""
    thesis = folder / "precious" / "thesis"
    thesis.mkdir(parents=True)
    for name in ("lock", "text.tex"):
        (thesis / name).write_text("x")
    return thesis


def link(root: Path, target: Path) -> None:
    root.symlink_to(target.parent)


def file(root: Path, _target: Path) -> None:
    root.write_text("")


def open_folder(root: Path, _target: Path) -> None:
    root.mkdir()
    root.chmod(0o777)


@pytest.mark.parametrize("make", [link, file, open_folder])
def test_a_worker_uses_another_name_where_the_first_is_not_its_own_folder(
    make: Callable[[Path, Path], None], memory: Path
) -> None:
    thesis = precious(memory.parent)
    make(memory / f"penstock-{os.geteuid()}", thesis)
    root = default_root()
    Scratch(root, "command", Path.mkdir).close()
    assert root == memory / f"penstock-{os.geteuid()}-1"
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert sorted(path.name for path in thesis.iterdir()) == ["lock", "text.tex"]


def test_the_message_where_every_name_is_taken(memory: Path) -> None:
    for name in ("", "-1", "-2", "-3"):
        open_folder(memory / f"penstock-{os.geteuid()}{name}", memory)
    with pytest.raises(
        SolverFailed, match=r"penstock-\d+ has mode drwxrwxrwx and owner \d+, and 3 more like it: expec"
    ):
        default_root()


@needs_root
def test_another_user_neither_deletes_nor_reads_nor_stops_anything(memory: Path) -> None:
    thesis = precious(memory.parent)
    for path in (thesis.parent, thesis, *thesis.iterdir()):
        os.chown(path, VICTIM, VICTIM)
    first = memory / f"penstock-{VICTIM}"
    assert as_user(STRANGER, lambda: first.symlink_to(thesis.parent)) == "None"

    def work() -> str:
        held = Scratch(default_root(), "command", Path.mkdir)
        return str(held.template)

    template = Path(as_user(VICTIM, work))
    assert template.is_relative_to(memory / f"penstock-{VICTIM}-1")
    assert sorted(path.name for path in thesis.iterdir()) == ["lock", "text.tex"]
    assert "PermissionError" in as_user(STRANGER, lambda: list(template.iterdir()))
    assert "PermissionError" in as_user(STRANGER, lambda: (template.parent / "lock").open())
