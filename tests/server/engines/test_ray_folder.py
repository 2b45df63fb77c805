"""The folder for a Ray's temporary files: private, short enough for sockets, with room."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from other_user import STRANGER, VICTIM, as_user, needs_root
from penstock_server.engines.ray import leftovers, ray_folder
from penstock_server.engines.ray.ray_folder import LONGEST_ROOT, NoFolder, expect_private, make_ray_folder, temporary


@pytest.fixture
def made() -> Iterator[Path]:
    folder = make_ray_folder()
    yield folder
    shutil.rmtree(folder)


def test_only_this_user_may_enter_whatever_the_umask(made: Path) -> None:
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert temporary(made).parent == made
    expect_private(made)


def test_a_socket_of_ray_fits_into_it(made: Path) -> None:
    session = "session_2026-01-01_00-00-00_000000_4194304"
    assert len(os.fsencode(temporary(made) / session / "sockets" / "plasma_store.1")) <= ray_folder.SOCKET_PATH_BYTES


def test_a_long_tmpdir_is_replaced_by_a_short_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * LONGEST_ROOT)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    folder = make_ray_folder()
    assert folder.parent != long
    folder.rmdir()


def test_without_a_usable_folder_the_message_names_tmpdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / ("x" * 99)))
    monkeypatch.setattr(ray_folder, "NEEDED_BYTES", 2**62)
    with pytest.raises(NoFolder, match=r"TMPDIR: .*is too long \(\d+ bytes\); /tmp is full .* set TMPDIR to one"):
        make_ray_folder()


def test_a_folder_that_others_may_enter_or_a_link_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    (tmp_path / "link").symlink_to(tmp_path)
    for path in (folder, tmp_path / "link"):
        with pytest.raises(NoFolder, match="expected a folder of mode 0700"):
            expect_private(path)


def test_a_ray_on_another_node_starts_below_a_folder_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "penstock-ray-x"
    command = [sys.executable, "-m", ray_folder.__name__, str(folder), "true"]
    assert subprocess.run(command, umask=0, check=False).returncode == 0
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_recorded_folder_that_others_may_enter_is_not_taken_for_ours(tmp_path: Path) -> None:
    folder = tmp_path / f"{leftovers.PREFIX}x"
    folder.mkdir(mode=0o700)
    (folder / leftovers.OWNER_FILE).write_text(str(tmp_path))
    (tmp_path / leftovers.RECORD_FILE).write_text(str(folder))
    assert leftovers.folder_of(tmp_path) == folder
    folder.chmod(0o777)
    assert leftovers.folder_of(tmp_path) is None


@needs_root
def test_another_user_sees_nothing_in_it() -> None:
    def make() -> Path:
        folder = make_ray_folder()
        temporary(folder).mkdir()
        temporary(folder).chmod(0o777)  # as Ray does
        return folder

    folder = Path(as_user(VICTIM, make))
    try:
        assert as_user(VICTIM, lambda: [path.name for path in folder.iterdir()]) == "['r']"
        for path in (folder, temporary(folder)):
            assert "PermissionError" in as_user(STRANGER, lambda path=path: list(path.iterdir()))
        assert "PermissionError" in as_user(STRANGER, lambda: (temporary(folder) / "gcs_server_port").write_text("1"))
    finally:
        shutil.rmtree(folder)
