"""Processes of a benchmark: they talk in lines of JSON, and none of them outlives its measurement."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from performance.pairs import CannotRun, one_line

FOLDER = Path(__file__).resolve().parent
PATIENCE = 300.0  # seconds to wait for a line
LEAVE_SECONDS = 30.0  # for a process to end by itself


class Failed(Exception):
    """A process of the benchmark ended too early, or said nothing for PATIENCE seconds."""


class Talker:
    """A process that reads a line to go on and writes what it has found, with all processes that it starts.

    It is the leader of a process group; leaving the context ends the group.

    Args:
        command: program and arguments.
        environment: variables beside this process's own.
    """

    def __init__(self, command: Sequence[str | Path], environment: dict[str, str] | None = None) -> None:
        paths = [str(FOLDER.parent), os.environ.get("PYTHONPATH", "")]
        variables = {"PYTHONPATH": os.pathsep.join(p for p in paths if p), **(environment or {})}
        self._process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | variables,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._in, self._out, self._err = self._process.stdin, self._process.stdout, self._process.stderr
        self._text, self._error_text = b"", b""
        for stream in (self._out, self._err):
            os.set_blocking(stream.fileno(), False)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def say(self, word: str = "go") -> None:
        """Write a line to the process."""
        with suppress(BrokenPipeError):  # `hear` says how it has ended
            self._in.write(word.encode() + b"\n")
            self._in.flush()

    def hear(self, patience: float = PATIENCE) -> dict[str, Any]:
        """Return the next line of JSON that it writes.

        Raises:
            CannotRun: it has said that something is missing.
            Failed: it has ended, or is silent.
        """
        until = time.monotonic() + patience
        while True:
            line, newline, rest = self._text.partition(b"\n")
            if newline:
                self._text = rest
                if not line.startswith(b"{"):
                    continue  # what a library prints
                said: dict[str, Any] = json.loads(line)
                if "cannot" in said:
                    raise CannotRun(said["cannot"])
                return said
            left = until - time.monotonic()
            if left <= 0:
                raise Failed(f"{self._name()} has said nothing for {patience:.0f} s")
            if not self._read(left):
                code = self._process.wait()
                raise Failed(f"{self._name()} ended with {code}: {one_line(self._error_text.decode(errors='replace'))}")

    def close(self) -> None:
        """Wait until the process has ended by itself, or end it; then end what it has left."""
        with suppress(BrokenPipeError):
            self._in.close()
        until = time.monotonic() + LEAVE_SECONDS
        while self._process.poll() is None and time.monotonic() < until:
            self._read(0.05)
        self._kill()

    def __enter__(self) -> Talker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._kill()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._in, self._out, self._err):
            with suppress(BrokenPipeError):
                stream.close()

    def _read(self, seconds: float) -> bool:
        """Read what is there, waiting up to `seconds`; return False once the process has closed its output."""
        ready, _, _ = select.select([self._out, self._err], [], [], seconds)
        if self._err in ready:
            self._error_text = (self._error_text + (self._err.read() or b""))[-20_000:]
        if self._out in ready:
            data = self._out.read()
            if data == b"":
                self._error_text = (self._error_text + (self._err.read() or b""))[-20_000:]
                return False
            self._text += data or b""
        return True

    def _name(self) -> str:
        return " ".join(str(part) for part in self._process.args[:4])  # type: ignore[index]


def python(module: str, *arguments: object, through: Sequence[str] = ()) -> list[str]:
    """Return the command of a module of this package.

    Args:
        module: its name, such as "produce".
        arguments: of the module.
        through: command that runs it, such as one for another network namespace.
    """
    return [*through, sys.executable, "-m", f"performance.{module}", *(str(a) for a in arguments)]


# What the processes themselves call


def tell(**figures: Any) -> None:
    """Write a line of JSON to the benchmark."""
    print(json.dumps(figures), flush=True)


def await_word() -> str:
    """Return the next line from the benchmark.

    Raises:
        SystemExit: the benchmark has gone.
    """
    line = sys.stdin.readline()
    if not line:
        sys.exit("the benchmark has gone")
    return line.strip()
