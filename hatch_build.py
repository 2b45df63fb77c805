"""Compiles the server's kernel.c when penstock is installed, if there is a C compiler; without one, numpy does the same.

The library has no Python in it, so that one wheel serves every Python of a platform. CC names another compiler.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "server/penstock_server/native/kernel.c"
LIBRARY = "libpenstock_kernel.so"
# No contraction to fused operations: every processor gives the same bits.
FLAGS = ("-O3", "-std=c11", "-ffp-contract=off", "-fPIC", "-shared", "-fvisibility=default")


class KernelBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Puts the compiled kernel beside its source, and into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the wheel is made.

        Args:
            version: "standard", or "editable" where the sources are used in place.
            build_data: what hatchling is told about the wheel.
        """
        source = Path(self.root) / SOURCE
        library = source.with_name(LIBRARY)
        if problem := build(source, library):
            library.unlink(missing_ok=True)  # of an earlier version
            self.app.display_warning(f"the server will take in data with numpy, more slowly: {problem}")
            return
        if version == "standard":
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
            build_data["artifacts"].append(str(library.relative_to(self.root)))  # git ignores it, the wheel has it


def build(source: Path, library: Path) -> str:
    """Compile the kernel.

    Args:
        source: kernel.c.
        library: the library to make; it replaces an older one at once, which a running server may have loaded.

    Returns:
        Why it could not be compiled; "" if it was.
    """
    asked = os.environ.get("CC")
    compiler = shlex.split(asked) if asked else [c for c in ("cc", "gcc", "clang") if shutil.which(c)][:1]
    if not compiler:
        return "there is no C compiler (cc, gcc or clang)"
    checksum = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    made = library.with_name(f".{library.name}.{os.getpid()}")
    command = [*compiler, *FLAGS, f'-DPENSTOCK_KERNEL_SOURCE="{checksum}"', str(source), "-o", str(made)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return f"{shlex.join(compiler)}: {error.strerror}"
    if done.returncode:
        made.unlink(missing_ok=True)
        return f"{shlex.join(command)}:\n{done.stderr[-2000:]}"
    made.replace(library)
    return ""
