"""Atomic writing: the old file or the new one, and nothing left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from penstock_client.atomic_file import replacing, write_atomic, write_private


def test_the_new_file_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.suffix == path.suffix
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", [write_atomic, write_private])
def test_a_failure_leaves_the_old_file_alone(write: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys.json"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write(path, "new")  # type: ignore[operator]
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_in_the_block_removes_the_temporary_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), replacing(tmp_path / "mesh.h5") as temporary:
        temporary.write_text("half")
        raise RuntimeError("interrupted")
    assert not list(tmp_path.iterdir())


def test_secrets_are_for_their_owner_alone_and_other_files_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_private(tmp_path / "keys.json", "{}")
        write_atomic(tmp_path / "report.json", "{}")
    finally:
        os.umask(before)
    assert (tmp_path / "keys.json").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "report.json").stat().st_mode & 0o777 == 0o644


def test_a_private_file_that_others_could_read_becomes_private(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
