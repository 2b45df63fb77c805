"""Running one program to its end: its output is read line by line, and nothing of it is left afterwards."""

from __future__ import annotations

import os
import selectors
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from penstock_client.errors import Abandoned
from penstock_solvers.processes import guard
from penstock_solvers.processes.lines import LineSplitter
from penstock_solvers.processes.task import TAIL_LINES, SolverFailed

POLL = 0.2  # seconds between two checks of `abandoned` and the wall time while a program prints nothing


class Follower(Protocol):
    """Reads the output of a program while it runs."""

    def follow(self, line: str) -> str | None:
        """Read one line.

        Args:
            line: the line, without its end.

        Returns:
            The reason why the program must be stopped, or None.
        """

    @property
    def verdict(self) -> str | None:
        """The error that the output reports, or None."""


def run_program(
    command: Sequence[str],
    *,
    directory: Path,
    environment: Mapping[str, str],
    wall_time: float,
    abandoned: Callable[[], bool],
    log: Path | None = None,
    follower: Follower | None = None,
) -> float:
    """Run a program to its end. No process of it is left when this returns or raises an error.

    Args:
        command: the program, found on the environment's PATH or given as a path, and its arguments.
        directory: its working directory.
        environment: its whole environment.
        wall_time: seconds after which it is stopped and fails.
        abandoned: asked a few times per second; the program is stopped once it returns True.
        log: file to which its output (both streams) is appended.
        follower: reads each line of the output.

    Returns:
        The seconds that the program took.

    Raises:
        SolverFailed: it cannot be started, ended with a code other than 0, took too long, or the follower stopped it.
        Abandoned: `abandoned` returned True.
        OSError: the log cannot be written.
    """
    process = _GuardedProcess(command, directory, environment, log, follower)
    deadline = process.started + wall_time
    try:
        while process.read(POLL):
            if abandoned():
                raise Abandoned(f"{process.name} was stopped: the server no longer wants this simulation")
            if time.monotonic() > deadline:
                raise SolverFailed(
                    f"{process.name} ran longer than wall_time = {wall_time:g} s and was stopped; "
                    "raise [solver] wall_time or make the simulation cheaper",
                    process.tail,
                )
        return process.outcome()
    finally:
        process.close()


class _GuardedProcess:
    """A program under its guard (see `guard`), whose output is read line by line."""

    def __init__(
        self,
        command: Sequence[str],
        directory: Path,
        environment: Mapping[str, str],
        log: Path | None,
        follower: Follower | None,
    ) -> None:
        self.name = shlex.join(command)
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.started = time.monotonic()
        self._follower = follower
        self._lines = LineSplitter()
        self._open = True
        with ExitStack() as stack:
            self._log = stack.enter_context(log.open("ab", buffering=0)) if log is not None else None
            self._selector = stack.enter_context(selectors.DefaultSelector())
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", guard.__file__, *command],
                    cwd=directory,
                    env={**environment, "PWD": str(directory)},  # OpenFOAM trusts PWD
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise SolverFailed(f"{self.name} cannot be started in {directory}: {error.strerror}") from error
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._lifeline = stack.enter_context(self._process.stdin)
            self._output = stack.enter_context(self._process.stdout)
            self._selector.register(self._output, selectors.EVENT_READ)
            self._resources = stack.pop_all()

    def read(self, timeout: float) -> bool:
        """Read the output that has arrived, waiting at most `timeout` seconds; False once the program has ended."""
        if not self._open:
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                return True
            return False
        if not self._selector.select(timeout):
            return self._process.poll() is None
        chunk = os.read(self._output.fileno(), 65536)
        if not chunk:
            self._open = False
            self._selector.unregister(self._output)
        if self._log is not None:
            self._log.write(chunk)
        for line in self._lines.feed(chunk):
            self._take(line)
        return True

    def _take(self, line: str) -> None:
        if line.strip():
            self.tail.append(line)
        reason = self._follower.follow(line) if self._follower is not None else None
        if reason is not None:
            raise SolverFailed(f"{self.name} was stopped: {reason}", self.tail)

    def outcome(self) -> float:
        """Return the seconds that the ended program took, or raise SolverFailed if it failed."""
        seconds = time.monotonic() - self.started
        code = self._process.wait()
        verdict = self._follower.verdict if self._follower is not None else None
        if code == 0 and verdict is None:
            return seconds
        how = f"ended with code {code}"
        if code < 0 or code > 128:
            number = -code if code < 0 else code - 128
            known = {s.value: s.name for s in signal.Signals}
            how = f"was ended by {known.get(number, f'signal {number}')}"
        raise SolverFailed(f"{self.name} {how}" + (f": {verdict}" if verdict is not None else ""), self.tail)

    def close(self) -> None:
        """End all processes of the program and close pipes and log."""
        with self._resources:
            self._lifeline.close()  # the guard then ends the whole session and itself
            try:
                killed = self._process.wait(guard.GRACE + 3) < 0
            except subprocess.TimeoutExpired:
                killed = True
            if killed:  # the guard itself was killed, so end the session from here
                guard.end_session(self._process.pid)
                self._process.wait()
