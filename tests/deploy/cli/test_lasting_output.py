"""Output that goes nowhere: a study goes on."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from penstock.cli.lasting_output import LastingOutput


def test_a_full_disk_is_told_once_on_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    with Path("/dev/full").open("w") as full:
        out = LastingOutput(full)
        for _ in range(3):
            out.write("line\n")
            out.flush()
    told = "penstock: the output cannot be written any more (No space left on device); the study goes on\n"
    assert capfd.readouterr().err == told


def test_a_reader_that_has_ended_ends_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        console = Console(file=LastingOutput(pipe))  # type: ignore[arg-type]
        for _ in range(3):
            console.print("line")
    assert "Broken pipe" in capfd.readouterr().err


def test_characters_that_the_terminal_lacks_are_replaced() -> None:
    content = io.BytesIO()
    out = LastingOutput(io.TextIOWrapper(content, encoding="ascii"))
    out.write("µ = 1\n")
    out.flush()
    assert content.getvalue() == b"? = 1\n"
