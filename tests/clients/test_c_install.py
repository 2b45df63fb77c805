"""libpenstock installs with a pkg-config file."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from native import ROOT, Installed
from stream_program import NO_CONNECTION

from mpi import require


def test_it_installs_with_a_pkg_config_file(tmp_path: Path) -> None:
    build, prefix = tmp_path / "build", tmp_path / "usr"
    make: list[str | Path] = ["make", "-s", "-j2", "-C", ROOT / "clients" / "c", f"BUILD={build}", "WERROR=-Werror"]
    subprocess.run(make, check=True)  # for another prefix
    subprocess.run([*make, f"PREFIX={prefix}", "install"], check=True)
    environment = os.environ | {"PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig")}
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "penstock"], env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    source = tmp_path / "main.c"
    source.write_text(
        "#include <penstock.h>\n#include <stdio.h>\n"
        'int main(void) { penstock *p; int s = (int)penstock_connect(&p, "nowhere.json", 0, 1);\n'
        "puts(penstock_error(p)); penstock_close(p); return s; }\n"
    )
    subprocess.run(["cc", source, *flags, "-o", tmp_path / "main"], check=True)
    needed = subprocess.run(["readelf", "-d", tmp_path / "main"], capture_output=True, text=True, check=True).stdout
    assert "[libpenstock.so.0]" in needed
    done = subprocess.run([tmp_path / "main"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == NO_CONNECTION
    assert done.stdout.startswith("cannot read nowhere.json (No such file or directory): is the study running")


def test_without_libzmq_nothing_is_built(tmp_path: Path) -> None:
    make = ["make", "-s", "-C", ROOT / "clients" / "c", f"BUILD={tmp_path / 'build'}"]
    environment = os.environ | {"PKG_CONFIG_LIBDIR": str(tmp_path), "PKG_CONFIG_PATH": ""}
    done = subprocess.run(make, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "libzmq was not found: install pkg-config and libzmq" in done.stderr
    assert not (tmp_path / "build").exists()


def test_a_fortran_client_that_is_not_connected_says_so(tmp_path: Path) -> None:
    require("gfortran")
    program = Installed(tmp_path).program("gfortran", ROOT / "tests/clients/mpi/unconnected.f90", "penstock-fortran")
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[:12] == ["-1", "F", "F", *7 * ["1"], "0", "this"]
    assert "this client is not connected: call connect first" in done.stdout
