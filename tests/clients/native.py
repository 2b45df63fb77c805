"""libpenstock as its users have it: installed, and programs compiled against it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from live_server import LiveServer, worker
from mpi import environment, mpirun
from waiting import PATIENCE

ROOT = Path(__file__).parents[2]
SANITIZERS = "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all"


class Installed:
    """A prefix with libpenstock and everything on top of it. flags: for the C compiler, of the library and of programs."""

    def __init__(self, folder: Path, flags: str = "-O2 -g") -> None:
        self.folder, self.prefix, self.flags = folder, folder / "usr", flags.split()
        command = [
            "make",
            "-s",
            "-j2",
            "-C",
            ROOT / "clients" / "c",
            f"BUILD={folder / 'build'}",
            f"PREFIX={self.prefix}",
        ]
        subprocess.run([*command, f"CFLAGS={flags}", "WERROR=-Werror", "install"], check=True)

    @property
    def environment(self) -> dict[str, str]:
        """What a user sets to build against it and to run what was built."""
        return {
            **os.environ,
            "PKG_CONFIG_PATH": str(self.prefix / "lib" / "pkgconfig"),
            "LD_LIBRARY_PATH": str(self.prefix / "lib"),
        }

    def program(self, compiler: str, source: Path, package: str, *options: str, name: str = "") -> Path:
        """Compile and link a program with what pkg-config says."""
        out = self.folder / (name or source.stem)
        asked = ["pkg-config", "--cflags", "--libs", package]
        said = subprocess.run(asked, env=self.environment, capture_output=True, text=True, check=True).stdout.split()
        subprocess.run([compiler, *self.flags, *options, source, *said, "-lm", "-o", out], cwd=self.folder, check=True)
        return out

    def example(self, name: str) -> Path:
        """An example's folder, copied and built by its own Makefile."""
        folder = self.folder / name
        if folder.exists():
            return folder
        subprocess.run(["cp", "-r", ROOT / "examples" / name, folder], check=True)
        variables = [f"CFLAGS={' '.join(self.flags)}"]
        subprocess.run(["make", "-s", "-B", "-C", folder, *variables], env=self.environment, check=True)
        return folder


def serve(
    server: LiveServer,
    installed: Installed,
    command: Sequence[str | Path],
    *,
    ranks: int = 0,
    code: int = 0,
    prefix: Sequence[str] = (),
) -> str:
    """Take the next simulation, run the command for it, say how it ended as a worker does, and return what it printed."""
    with worker(server) as client:
        simulation = client.next_simulation()
        assert simulation is not None
        filled = [str(part).format(**simulation.parameters) for part in command]
        variables = environment(server.environment(simulation)) | {
            "LD_LIBRARY_PATH": str(installed.prefix / "lib"),
            # Open MPI leaves memory behind, in modules that it has unloaded: valgrind looks for leaks of MPI programs.
            "ASAN_OPTIONS": f"detect_leaks={int(not ranks)}",
        }
        done = subprocess.run(
            mpirun(ranks, *prefix, *filled) if ranks else [*prefix, *filled],
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (done.returncode == 0) == (code == 0), done.stdout
        if code == 0:
            simulation.exited()
        else:
            simulation.fail("as a worker says it")
    return done.stdout
