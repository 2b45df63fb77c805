"""Run clients/c/tests/stream.c, a solver in C that streams a field."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

U = {"u": {"components": 2}}  # the field that it streams
# Its exit codes, which are values of penstock_status.
NO_CONNECTION, REFUSED, ABANDONED, SERVER_LOST, NO_MEMORY = 2, 4, 5, 6, 7


def run(programs: Path, *arguments: str, name: str = "stream", **environment: str) -> tuple[int, str, float]:
    """Run it, or the program `name`, with these arguments; returns its exit code, its last line and how many seconds it took."""
    begun = time.monotonic()
    variables = {"PENSTOCK_SIMULATION": "0", "PENSTOCK_ATTEMPT": "1", "PENSTOCK_CONNECT_TIMEOUT": "1"} | environment
    done = subprocess.run(
        [programs / name, *(arguments or ("3", "4"))],
        env={k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")} | variables,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()[-1], time.monotonic() - begun
