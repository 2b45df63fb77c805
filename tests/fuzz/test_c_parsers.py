"""libpenstock's parsers under the sanitizers, for a few seconds: what `make fuzz` does at length."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from c_parsers import build, write_seeds

INPUTS = 40_000
MAX_GROWTH_MIB = 32  # the corpus that the fuzzer keeps, and the sanitizer's own books


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("fuzz"))


def test_no_input_does_harm(program: Path, tmp_path: Path) -> None:
    write_seeds(tmp_path / "seeds")
    done = subprocess.run(
        [program, tmp_path / "seeds", str(INPUTS)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = re.fullmatch(
        rf"{INPUTS} inputs .* (\d+) edges, (\d+) inputs kept beside \d+ seeds, RSS ([\d.]+) MiB, at the end ([\d.]+) MiB\n",
        done.stdout,
    )
    assert figures is not None, done.stdout
    edges, kept, settled, end = map(float, figures.groups())
    assert edges > 400  # it reached the parsers' insides, and noticed
    assert kept > 20
    assert end - settled < MAX_GROWTH_MIB


def test_a_read_past_the_end_would_be_found(program: Path, tmp_path: Path) -> None:
    """The guard guarded: an input is run from the start of its own memory to its end, under the sanitizer."""
    whole = tmp_path / "whole"
    whole.write_bytes(bytes([0]) + b"PNSK")
    assert subprocess.run([program, whole], check=False).returncode == 0
    symbols = subprocess.run(["nm", program], capture_output=True, text=True, check=True).stdout
    assert "__asan_report_load" in symbols
    assert "__ubsan_handle" in symbols
    assert "__sanitizer_cov_trace_pc" in symbols
