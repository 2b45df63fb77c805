"""Penstock builds the function object's library, or names what is missing."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cavity import cavity_of, icofoam

from penstock_solvers.openfoam.build import LIBRARY, OpenFOAMBuildError, build, library_path
from penstock_solvers.openfoam.environment import openfoam_environment

pytestmark = pytest.mark.openfoam


def test_build_says_where_the_library_went(tmp_path: Path, library: Path) -> None:
    assert library.name == LIBRARY
    said: list[str] = []
    built = build(tmp_path / "lib", said.append)
    assert built == tmp_path / "lib" / LIBRARY
    assert [path.name for path in (tmp_path / "lib").iterdir()] == [LIBRARY]
    assert said[-1] == f"compiling {LIBRARY}"
    symbols = subprocess.run(["nm", "-DC", built], capture_output=True, text=True, check=True).stdout
    assert "Foam::functionObjects::penstockStream::execute()" in symbols
    assert not re.search(r" [A-Z] (penstock_|pnsk_)", symbols)  # a solver may link a libpenstock of its own


@pytest.mark.slow
def test_a_site_with_wmake_builds_with_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, library: Path, tutorial: Callable[..., Path]
) -> None:
    """wmake comes from OpenFOAM's source package, which `build` has fetched, in the folders of an installation."""
    fetched = next(library.parents[1].glob("headers-*"))
    site, options = tmp_path / "site", "linux64GccDPInt32Opt"
    shutil.copytree(fetched / "wmake", site / "wmake")
    (site / "src").symlink_to(fetched / "src")
    (site / "etc").symlink_to(Path(openfoam_environment()["WM_PROJECT_DIR"]) / "etc")
    binaries = site / "platforms" / options / "lib"
    binaries.mkdir(parents=True)
    for name in ("OpenFOAM", "finiteVolume"):
        linked = subprocess.run(["ldd", shutil.which("icoFoam") or ""], capture_output=True, text=True, check=True)
        found = re.search(rf"lib{name}\.so => (\S+)", linked.stdout)
        assert found is not None
        (binaries / f"lib{name}.so").symlink_to(found[1])
    monkeypatch.setenv("WM_PROJECT", "OpenFOAM")
    for name, value in {
        "PROJECT_DIR": site,
        "PROJECT_VERSION": "v1912",
        "DIR": site / "wmake",
        "ARCH": "linux64",
        "ARCH_OPTION": "64",
        "COMPILER": "Gcc",
        "COMPILER_TYPE": "system",
        "COMPILE_OPTION": "Opt",
        "PRECISION_OPTION": "DP",
        "LABEL_SIZE": "32",
        "LABEL_OPTION": "Int32",
        "OPTIONS": options,
    }.items():
        monkeypatch.setenv(f"WM_{name}", str(value))
    monkeypatch.setenv("FOAM_LIBBIN", str(binaries))
    with pytest.raises(OpenFOAMBuildError, match=r"^FOAM_USER_LIBBIN is not set: source .*/etc/bashrc"):
        build()
    monkeypatch.setenv("FOAM_USER_LIBBIN", str(tmp_path / "user"))
    subprocess.run(["make", "-s", "-C", site / "wmake" / "src"], stdout=subprocess.DEVNULL, check=True)
    assert library_path() is None
    assert build() == library_path() == tmp_path / "user" / LIBRARY
    case = cavity_of(tutorial, library=library_path())
    assert "penstock: no server given" in icofoam(case)[1]


def test_the_library_is_looked_for_where_build_puts_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert library_path() is None
    folder = tmp_path / "penstock" / "openfoam-v1912" / "lib"
    folder.mkdir(parents=True)
    (folder / LIBRARY).touch()
    assert library_path() == folder / LIBRARY


def test_what_is_missing_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OpenFOAMBuildError, match=r"^gcc, g\+\+, pkg-config not found on PATH; .*apt-get install g\+\+"):
        build(tmp_path / "lib")
    for tool in ("gcc", "g++", "pkg-config"):
        (tmp_path / tool).symlink_to("/bin/false")
    with pytest.raises(OpenFOAMBuildError, match=r"^libzmq 4\.3 or later .*apt-get install .*libzmq3-dev$"):
        build(tmp_path / "lib")
    monkeypatch.setenv("WM_PROJECT_DIR", str(tmp_path))
    with pytest.raises(OpenFOAMBuildError, match=r"is not an OpenFOAM: it has no etc/controlDict"):
        build(tmp_path / "lib")


def test_an_openfoam_is_given_by_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(OpenFOAMBuildError, match=r"is not an OpenFOAM: it has no etc/bashrc"):
        build(openfoam=tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'none'}:/usr/bin:/bin")
    (tmp_path / "etc").mkdir()
    bashrc = tmp_path / "etc" / "bashrc"
    bashrc.write_text("export WM_PROJECT_DIR=/elsewhere\n")
    with pytest.raises(OpenFOAMBuildError, match=r"sets WM_PROJECT_DIR = /elsewhere, expected"):
        build(openfoam=tmp_path)
    for part in ("wmake", "src/finiteVolume", "user"):
        (tmp_path / part).mkdir(parents=True)
    wmake = tmp_path / "wmake" / "wmake"
    wmake.write_text(
        '#!/bin/sh\n[ "$WM_PROJECT_VERSION" = 13 ] && cat exported.map > "$PENSTOCK_LIBBIN/libpenstockStream.so"\n'
    )
    wmake.chmod(0o755)
    bashrc.write_text(
        f"export WM_PROJECT_DIR={tmp_path} WM_PROJECT_VERSION=13 FOAM_USER_LIBBIN={tmp_path}/user\necho noise\n"
    )
    assert build(openfoam=tmp_path) == tmp_path / "user" / LIBRARY
