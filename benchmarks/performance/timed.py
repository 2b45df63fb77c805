"""Run a program and write its wall time and CPU time: `python timed.py OUT.json PROGRAM [ARGUMENT ...]`."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def main() -> int:
    """Run from the command line; return the program's exit code."""
    out, *command = sys.argv[1:]
    begun = time.perf_counter()
    process = os.posix_spawnp(command[0], command, os.environ)
    _, status, used = os.wait4(process, 0)
    wall = time.perf_counter() - begun
    Path(out).write_text(json.dumps({"wall": wall, "cpu": used.ru_utime + used.ru_stime}))
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
