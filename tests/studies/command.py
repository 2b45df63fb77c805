"""Running `penstock` as its users do: as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from waiting import PATIENCE, commands

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PENSTOCK = [sys.executable, "-m", "penstock.main"]


def penstock(*arguments: str | Path, code: int = 0, timeout: float = PATIENCE) -> str:
    """Run to the end; returns what it printed. The exit code must be `code`."""
    done = subprocess.run(
        [*PENSTOCK, *map(str, arguments)], capture_output=True, text=True, timeout=timeout, check=False, cwd=ROOT
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout + done.stderr


def started(*arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    """Start and return the process; it leads a process group of its own, as one started from a shell does.

    `end_what_was_started` ends it after the test, whatever the outcome.
    """
    process = subprocess.Popen(
        [*PENSTOCK, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        process_group=0,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
    )
    commands.append(process)
    return process


def end_what_was_started() -> None:
    """Kill the commands that `started` has started and that still run; what these have started ends with them."""
    while commands:
        process = commands.pop()
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def running(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A command, as `started`, that is killed at the end of the context if it still runs.

    A test that fails meanwhile says what the command had printed.
    """
    process = started(*arguments)
    try:
        yield process
    except BaseException as error:
        process.kill()
        if process.stdout and not process.stdout.closed:
            error.add_note(f"the command has printed: {process.communicate()[0]}")
        raise
    finally:
        process.kill()
        process.wait()


def report(out: Path) -> dict[str, Any]:
    """The run directory's report.json."""
    return json.loads((out / "report.json").read_text())


def events(out: Path, name: str) -> list[dict[str, Any]]:
    """The events of that name so far."""
    path = out / "events.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [event for event in map(json.loads, lines) if event["event"] == name]
