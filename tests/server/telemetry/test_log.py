"""The log of a process: times, levels, tracebacks, and the words for a report."""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock_client import PenstockError
from penstock_server.telemetry import ProcessLog


@pytest.fixture
def log(tmp_path: Path) -> Iterator[ProcessLog]:
    log = ProcessLog(tmp_path, "server")
    yield log
    log.close()


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def test_a_line_has_time_level_and_logger(tmp_path: Path, log: ProcessLog) -> None:
    logging.getLogger("penstock.engine").info("checkpoint %d written", 3)
    first, line = (tmp_path / "logs" / "server.log").read_text().splitlines(keepends=True)
    assert f"INFO penstock: server on {socket.gethostname()}, process {os.getpid()}, Penstock " in first
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO penstock\.engine: checkpoint 3 written\n", line)


def test_an_unexpected_error_is_logged_with_its_traceback_and_names_the_log(tmp_path: Path, log: ProcessLog) -> None:
    words = log.failure(raised(KeyError("x")), "training")
    assert words == "training: KeyError: 'x' (traceback in logs/server.log)"
    text = (tmp_path / "logs" / "server.log").read_text()
    assert "ERROR penstock: training failed" in text
    assert "Traceback (most recent call last)" in text
    assert "raise error" in text


def test_an_error_made_for_users_speaks_for_itself(tmp_path: Path, log: ProcessLog) -> None:
    assert log.failure(raised(PenstockError("the disk is full: make room"))) == "the disk is full: make room"
    assert "Traceback" in (tmp_path / "logs" / "server.log").read_text()


def test_the_cause_of_an_error_from_another_process_is_put_into_words(log: ProcessLog) -> None:
    wrapped = raised(RuntimeError("remote traceback of many lines"))
    wrapped.cause = ValueError("the model has no parameters")  # type: ignore[attr-defined]
    assert log.failure(wrapped, plain=(ValueError,)) == "the model has no parameters"


def test_a_closed_log_takes_nothing_more(tmp_path: Path) -> None:
    log = ProcessLog(tmp_path, "server")
    log.close()
    logging.getLogger("penstock.checkpoint").warning("late")
    assert "late" not in (tmp_path / "logs" / "server.log").read_text()


def test_lines_that_the_disk_does_not_take_are_counted_and_end_nothing() -> None:
    """/dev/full takes no byte."""
    program = (
        "import logging, os, sys; from pathlib import Path; from penstock_server.telemetry import ProcessLog\n"
        "folder = Path(sys.argv[1]); (folder / 'logs').mkdir(); os.symlink('/dev/full', folder / 'logs' / 'server.log')\n"
        "log = ProcessLog(folder, 'server'); logging.getLogger('penstock').info('one'); print(*log.warnings())\n"
    )
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True, check=True)
    assert done.stdout == "logs/server.log: 2 lines could not be written\n"
    assert done.stderr == ""


def test_what_nothing_catches_is_logged_on_every_thread(tmp_path: Path) -> None:
    program = (
        "import sys, threading, warnings; from pathlib import Path; from penstock_server.telemetry import log_this_process\n"
        "log_this_process(Path(sys.argv[1]), 'rank-0'); warnings.warn('odd')\n"
        "t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join(); raise KeyError('main')\n"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, check=False)
    text = (tmp_path / "logs" / "rank-0.log").read_text()
    assert "UserWarning: odd" in text
    assert "ZeroDivisionError: division by zero" in text
    assert "KeyError: 'main'" in text
