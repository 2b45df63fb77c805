"""Errors that end a command: one line for the user, and a log with the traceback.

Needs only the standard library and the client, so that `penstock worker` can use it on a compute node.
"""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from pathlib import Path
from traceback import extract_tb

from penstock_client import PenstockError

INSTALL = "pip install 'penstock[server]'"
EXTRAS = {
    "PyFoam": "pip install 'penstock[openfoam]'",
    "scipy": "pip install 'penstock[solvers]'",
    "bokeh": "pip install 'penstock[live]'",
    **dict.fromkeys(("fastapi", "uvicorn", "starlette"), "pip install 'penstock[service]'"),
    **dict.fromkeys(("onnx", "onnxscript", "onnxruntime"), "pip install 'penstock[onnx]'"),
}
LONGEST = 600  # characters of a message about an unexpected error

_run_directory: Path | None = None


def log_failures_in(directory: Path | None) -> Path | None:
    """Set the run directory whose logs/penstock.log gets the traceback of an unexpected error of this command.

    Args:
        directory: the run directory, which need not exist yet; None where the command has none.

    Returns:
        The same directory, as a callback of an argument must.
    """
    global _run_directory
    _run_directory = directory
    return directory


def open_closed_streams() -> None:
    """Open /dev/null in place of standard streams that are closed: a file would take their numbers and their output."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest free number, this one
            if name != "stdin" and getattr(sys, name) is None:
                setattr(sys, name, os.fdopen(number, "w", closefd=False))


def explain(error: BaseException, command: str) -> int:
    """Tell the user in one line for each problem what ended a command.

    Args:
        error: what was raised.
        command: its name, such as "run"; "" where it is not known.

    Returns:
        The exit code: 2 for a wrong study file, 130 for Ctrl-C, else 1.
    """
    if isinstance(error, KeyboardInterrupt):
        _print("penstock: interrupted")
        return 130
    if isinstance(error, BrokenPipeError) or (isinstance(error, OSError) and error.errno == errno.EPIPE):
        return 1  # the program that read the output has ended, as `head` does
    if isinstance(error, PenstockError):
        # A StudyError is known by its attribute, not by its class: a worker does not import pydantic.
        problems = getattr(error, "problems", None)
        _print("\n".join(problems) if problems else f"penstock: {error}")
        return 2 if problems else 1
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        if package and not package.startswith("penstock"):
            install = EXTRAS.get(package, INSTALL)
            _print(f"penstock: this command needs the package {package}, which is not installed: {install}")
            return 1
    name = f"penstock {command}".strip()
    _print(f"penstock: `{name}` failed: {_in_words(error)}; {_logged(error, name)}")
    return 1


def flush_output() -> int:
    """Write out what the command has printed, which a full disk or a closed pipe may refuse.

    Returns:
        The exit code: 0, or 1 where the output is lost.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        # Python tries again when it ends, and would print a traceback then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            _print(f"penstock: the output cannot be written: {error.strerror}")
        return 1
    return 0


def _in_words(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "this machine has not enough memory"
    if isinstance(error, OSError) and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}" if error.filename else error.strerror
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def _logged(error: BaseException, name: str) -> str:
    """Write the traceback to a log, and tell where it is."""
    refused = ""
    for directory in (_own_directory, _new_directory):
        try:
            return f"the traceback is in {_write_log(directory(), error, name)}"
        except ImportError:  # on a compute node, where only the client is installed
            frames = extract_tb(error.__traceback__)
            return f"raised in {frames[-1].filename}, line {frames[-1].lineno}" if frames else "no traceback is known"
        except OSError as cause:
            refused = cause.strerror or str(cause)
    return f"the traceback cannot be written to a log ({refused})"


def _own_directory() -> Path:
    """The run directory of this command, where it has one that holds logs."""
    if _run_directory is None or not (_run_directory / "logs").is_dir():
        raise FileNotFoundError("no run directory")
    return _run_directory


def _new_directory() -> Path:
    return Path(tempfile.mkdtemp(prefix="penstock-"))


def _write_log(directory: Path, error: BaseException, name: str) -> Path:
    """Log an error with its traceback in a folder; OSError where that is not possible."""
    from penstock_server.telemetry import ProcessLog

    log = ProcessLog(directory, "penstock")
    log.failure(error, name)
    log.close()
    if lost := log.warnings():
        raise OSError(lost[0])
    return directory / log.name


def _print(text: str) -> None:
    """Print to standard error, which may be closed or full."""
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        return
