"""Waiting for what must happen, and judging how long it took, however busy the machine is."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from typing import Any

PATIENCE = 600.0  # seconds: far longer than anything takes, for only a test that fails waits as long

commands: list[subprocess.Popen[str]] = []
"""Commands that the test has started: tests/studies/command.py. `wait_for` fails when one of them has failed."""


def wait_for(what: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Wait until `what()` is true, and return it."""
    deadline, pause = time.monotonic() + seconds, 0.001
    while not (found := what()):
        for command in commands:
            if (command.poll() or 0) > 0 and command.stdout and not command.stdout.closed:
                raise AssertionError(f"a command has ended with code {command.returncode}: {command.communicate()[0]}")
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain"
        time.sleep(pause)
        pause = min(2 * pause, 0.1)
    return found


def busy() -> float:
    """By how much slower than alone a process may be now: 1 on an idle machine, more where processes wait for cores."""
    return max(1.0, 2.0 * os.getloadavg()[0] / (os.cpu_count() or 1))
