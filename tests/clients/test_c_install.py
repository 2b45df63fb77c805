"""libpenstock installs with a pkg-config file."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from native import ROOT
from stream_program import NO_CONNECTION


def test_it_installs_with_a_pkg_config_file(tmp_path: Path) -> None:
    build, prefix = tmp_path / "build", tmp_path / "usr"
    subprocess.run(
        ["make", "-s", "-C", ROOT / "clients" / "c", f"BUILD={build}", f"PREFIX={prefix}", "install"], check=True
    )
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
    environment["LD_LIBRARY_PATH"] = str(prefix / "lib")
    done = subprocess.run([tmp_path / "main"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == NO_CONNECTION
    assert done.stdout.startswith("cannot read nowhere.json (No such file or directory): is the study running")
