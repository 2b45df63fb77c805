"""Commands in odd environments: it works, or one line and an exit code say why not; never a traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest

from waiting import PATIENCE

PENSTOCK = [sys.executable, "-m", "penstock.main"]


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "POSIX", "PYTHONIOENCODING": "ascii"},
        {"HOME": "/nonexistent", "TMPDIR": "/nonexistent"},
        {"TMPDIR": "/tmp/" + "x" * 200},
        {"COLUMNS": "20"},
    ],
    ids=lambda environment: next(iter(environment)),
)
def test_a_command_works_or_says_why_not(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for arguments, code in ((["--help"], 0), (["check", "/nowhere.toml"], 2)):
        done = subprocess.run(
            [*PENSTOCK, *arguments], capture_output=True, text=True, cwd="/", timeout=PATIENCE, check=False
        )
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr


@pytest.mark.parametrize("streams", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_closed_streams_are_no_error(streams: str) -> None:
    script = f'"$@" {streams}'
    done = subprocess.run(["sh", "-c", script, "sh", *PENSTOCK, "--version"], timeout=PATIENCE, check=False)
    assert done.returncode == 0
