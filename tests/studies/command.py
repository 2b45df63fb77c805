"""Running `penstock` as its users do: as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PENSTOCK = [sys.executable, "-m", "penstock.main"]


def penstock(*arguments: str | Path, code: int = 0, timeout: float = 400.0) -> str:
    """Run to the end; returns what it printed. The exit code must be `code`."""
    done = subprocess.run(
        [*PENSTOCK, *map(str, arguments)], capture_output=True, text=True, timeout=timeout, check=False, cwd=ROOT
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout + done.stderr


def started(*arguments: str | Path) -> subprocess.Popen[str]:
    """Start and return the process; it leads a process group of its own, as one started from a shell does."""
    return subprocess.Popen(
        [*PENSTOCK, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        process_group=0,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


@contextmanager
def running(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A command, as `started`; nothing of it stays where the test fails."""
    process = started(*arguments)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def report(out: Path) -> dict[str, Any]:
    """The run directory's report.json."""
    return json.loads((out / "report.json").read_text())


def events(out: Path, name: str) -> list[dict[str, Any]]:
    """The events of that name so far."""
    path = out / "events.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [event for event in map(json.loads, lines) if event["event"] == name]


def wait_for(what: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Wait until `what()` is true, and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds:.0f} s in vain")


def left_over(process: psutil.Process, before: set[int]) -> list[str]:
    """Command lines of what still runs of a process that has ended: its known descendants."""
    return [" ".join(psutil.Process(pid).cmdline()) for pid in before if psutil.pid_exists(pid) and pid != process.pid]
