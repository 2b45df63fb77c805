"""Log files: each process of a study writes logs/<process>.log in the run directory.

Modules log with the standard library, `logging.getLogger("penstock.<module>")`. A line has the local time, the level,
the logger and the message; a failure is followed by its traceback. Users are shown the failure in words and the name of
the log.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import socket
import sys
import threading
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType

from penstock_client.errors import PenstockError

LOGS = "logs"
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

_log = logging.getLogger("penstock")


class LogFile(logging.FileHandler):
    """Appends to a log file; lines that cannot be written are counted in `lost`: a full disk must not end a study.

    Args:
        path: the file; it is made with the first line.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, delay=True, encoding="utf-8")
        self.setFormatter(logging.Formatter(FORMAT))
        self.lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        try:
            super().emit(record)
        except OSError:  # the file cannot be opened
            self.lost += 1

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - the standard library's name
        """Count a line that could not be written."""
        self.lost += 1


class ProcessLog:
    """The log of one process of a study, from now until `close`. Libraries' warnings go there, too.

    Args:
        directory: the run directory.
        process: the process's name, such as "server" or "rank-0".
    """

    def __init__(self, directory: Path, process: str) -> None:
        (directory / LOGS).mkdir(parents=True, exist_ok=True)
        self.name = f"{LOGS}/{process}.log"
        self._file = LogFile(directory / self.name)
        logging.getLogger().addHandler(self._file)
        _log.setLevel(logging.INFO)
        _log.info("%s on %s, process %d, Penstock %s", process, socket.gethostname(), os.getpid(), _version())

    def failure(
        self, error: BaseException, doing: str = "", *, plain: tuple[type[BaseException], ...] = (PenstockError,)
    ) -> str:
        """Log an error with its traceback and put it into words for the report.

        Args:
            error: the error; for one that Ray has brought from another process, its cause is put into words.
            doing: what the process was doing, such as "ingest".
            plain: errors whose text says everything that a user needs; for any other the log is named.

        Returns:
            What the report and the screen say.
        """
        _log.error("%s failed", doing or "the server", exc_info=error)
        cause = getattr(error, "cause", None)
        known = cause if isinstance(cause, BaseException) else error
        what = f"{doing}: " if doing else ""
        if isinstance(known, plain):
            return f"{what}{known}"
        return f"{what}{type(known).__name__}: {known} (traceback in {self.name})"

    def warnings(self) -> tuple[str, ...]:
        """What could not be logged, for the report."""
        return (f"{self.name}: {self._file.lost} lines could not be written",) if self._file.lost else ()

    def close(self) -> None:
        """Log to this file no longer."""
        logging.getLogger().removeHandler(self._file)
        self._file.close()


def log_this_process(directory: Path, process: str) -> ProcessLog:
    """Open the log of a process that belongs to one study alone.

    The log also gets uncaught exceptions of every thread, Python's warnings, and the stacks of all threads at a fatal
    signal.

    Args:
        directory: the run directory.
        process: the process's name, such as "rank-0".
    """
    log = ProcessLog(directory, process)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda caught: _uncaught(caught.exc_type, caught.exc_value, caught.exc_traceback)
    try:
        faulthandler.enable((directory / log.name).open("a"))
    except OSError as error:
        _log.warning("no stacks at a fatal signal: %s: %s", directory / log.name, error)
    return log


def _version() -> str:
    try:
        return version("penstock")
    except PackageNotFoundError:  # run from the sources
        return "not installed"


def _uncaught(kind: type[BaseException], value: BaseException | None, trace: TracebackType | None) -> None:
    if value is not None:
        _log.critical("an exception was not caught", exc_info=(kind, value, trace))
