"""Every Python script that the Makefile runs can be run: it finds what it imports, from wherever it is called."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(set(re.findall(r"\$\(BIN\)/python ((?:benchmarks|tests)/\S+)", (ROOT / "Makefile").read_text())))


def test_there_are_some() -> None:
    assert len(SCRIPTS) > 10


@pytest.mark.parametrize("script", SCRIPTS)
def test_it_says_what_it_does(script: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / script, "--help"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
