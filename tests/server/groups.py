"""Groups of trainer ranks in processes of their own, for tests."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from waiting import PATIENCE

WORKER = Path(__file__).with_name("group_worker.py")


@contextmanager
def ranks(size: int, what: str, *arguments: object) -> Iterator[list[subprocess.Popen[str]]]:
    """The processes of a group of this size; none is left."""
    processes: list[subprocess.Popen[str]] = []
    port = "0"
    try:
        for rank in range(size):
            command = [sys.executable, str(WORKER), str(rank), str(size), port, what, *map(str, arguments)]
            processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            if rank == 0:
                assert processes[0].stdout is not None
                port = processes[0].stdout.readline().strip()
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def result(process: subprocess.Popen[str], timeout: float = PATIENCE) -> Any:
    """What a rank printed at its end."""
    printed, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0, printed
    return json.loads(printed.splitlines()[-1])
