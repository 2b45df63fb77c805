"""The kernel is compiled on install where there is a compiler, and only a library of this kernel.c is used."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from kernel_library import compiled

from lacking import lacking
from penstock_server.native import describe
from penstock_server.native.library import FOLDER, LIBRARY, load, source_checksum

ROOT = Path(__file__).parents[3]
INSIDE = f"penstock_server/native/{LIBRARY}"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a wheel is built from, as docker/Dockerfile copies it: without .gitignore."""
    folder = tmp_path_factory.mktemp("sources")
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "hatch_build.py"):
        shutil.copy(ROOT / name, folder)
    for name in ("clients", "solver_adapters", "server", "deploy"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.so", "*.o"))
    return folder


def wheel(sources: Path, into: Path, **variables: str) -> tuple[str, list[str], str]:
    """Build a wheel; return its name, the files in it, and what was printed."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(into)]
    environment = {**{k: v for k, v in os.environ.items() if k != "CC"}, **variables}
    done = subprocess.run(command, cwd=sources, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (made,) = into.glob("*.whl")
    with zipfile.ZipFile(made) as archive:
        archive.extractall(into / "files")
        return made.name, archive.namelist(), done.stdout + done.stderr


def test_a_wheel_holds_the_library_and_says_for_which_platform(sources: Path, tmp_path: Path) -> None:
    if shutil.which("cc") is None:
        lacking("needs a C compiler: `make system`")
    quick = tmp_path / "quick-cc"
    quick.write_text('#!/bin/sh\nexec cc "$@" -O0\n')
    quick.chmod(0o755)
    for git_ignores, into in ((False, tmp_path / "first"), (True, tmp_path / "again")):
        if git_ignores:
            shutil.copy(ROOT / ".gitignore", sources)
        name, files, _ = wheel(sources, into, CC=str(quick))
        assert "-py3-none-linux_" in name
        assert files.count(INSIDE) == 1
        kernel, said = load(into / "files" / "penstock_server" / "native")
        assert kernel is not None, said


@pytest.mark.parametrize("compiler", ["/nowhere/cc", "false"])
def test_without_a_working_compiler_the_wheel_is_for_every_platform(
    sources: Path, tmp_path: Path, compiler: str
) -> None:
    name, files, printed = wheel(sources, tmp_path, CC=compiler)
    assert name.endswith("-py3-none-any.whl")
    assert not [file for file in files if file.endswith(".so")]
    assert compiler in printed
    kernel, said = load(tmp_path / "files" / "penstock_server" / "native")
    assert kernel is None
    assert "numpy takes in what arrives" in said


def test_a_library_of_another_source_is_not_used(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "kernel.c", tmp_path)
    compiled(tmp_path, "-O0", f'-DPENSTOCK_KERNEL_SOURCE="{source_checksum(FOLDER / "kernel.c")}"')
    assert load(tmp_path)[0] is not None
    with (tmp_path / "kernel.c").open("a") as source:
        source.write("/* changed */\n")
    kernel, said = load(tmp_path)
    assert kernel is None
    assert "another version; install penstock again" in said


def test_what_is_no_library_is_not_used(tmp_path: Path) -> None:
    (tmp_path / LIBRARY).write_bytes(b"no library")
    kernel, said = load(tmp_path)
    assert kernel is None
    assert LIBRARY in said


def test_the_log_can_say_which_form_is_in_use() -> None:
    assert "takes in what arrives" in describe()
