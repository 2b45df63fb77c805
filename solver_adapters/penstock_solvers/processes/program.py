"""Solvers that run as processes of their own: what they are asked, what they report, and watching over them."""

from __future__ import annotations

import os
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from penstock_client.errors import Abandoned, PenstockError
from penstock_solvers.processes import guard

TAIL = 20  # lines of a log that a failure shows
LINE = 400  # characters of each of them: the message travels to the server
POLL = 0.2  # seconds between two looks at "abandoned" and at the wall time while a program is silent


@dataclass(frozen=True)
class Task:
    """One attempt at one simulation.

    environment: what is added to this process's environment: PENSTOCK_CONNECT (an absolute path), PENSTOCK_SIMULATION,
    PENSTOCK_ATTEMPT and the thread limits. log: file that the solver's output is appended to; without one, only the last
    lines are kept, in memory.
    """

    simulation: int
    attempt: int
    parameters: Mapping[str, float]
    environment: Mapping[str, str] = field(default_factory=dict)
    log: Path | None = None


@dataclass(frozen=True)
class RunSummary:
    """What a simulation that finished tells of itself; what a solver's log does not say is None or empty.

    seconds: wall time of the solver. delta_t: of the last time step, in the case's unit of time. initial_residuals,
    final_residuals: per solved field, of the last time step (its first and its last linear solve).
    """

    seconds: float
    time_steps: int | None = None
    max_courant: float | None = None
    delta_t: float | None = None
    initial_residuals: Mapping[str, float] = field(default_factory=dict)
    final_residuals: Mapping[str, float] = field(default_factory=dict)


class SolverFailed(PenstockError):
    """A simulation failed. The text holds the reason and the last lines of its log.

    Attributes:
        reason: one line.
        tail: the last lines of the log, at most 20.
    """

    def __init__(self, reason: str, tail: Sequence[str] = ()) -> None:
        shown = [line if len(line) <= LINE else line[:LINE] + " ..." for line in tail][-TAIL:]
        heading = f"\nThe last {len(shown)} lines of its log:\n" if shown else ""
        super().__init__(reason + heading + "\n".join("  " + line for line in shown))
        self.reason = reason
        self.tail = tuple(shown)


class Runner(Protocol):
    """Runs simulations of one study as processes."""

    def run(self, task: Task, abandoned: Callable[[], bool]) -> RunSummary:
        """Run one simulation to its end.

        Raises:
            SolverFailed: it could not be started, ended with an error, diverged, or took longer than its wall time.
            Abandoned: `abandoned()` became true; nothing of the solver runs any more.
        """


class Follower(Protocol):
    """Reads a program's log while it runs."""

    def follow(self, line: str) -> str | None:
        """Take one line; return why the program must be stopped, or None."""

    @property
    def verdict(self) -> str | None:
        """What the log says went wrong, or None."""


def tmpfs_directory() -> Path:
    """A folder in memory where there is one (/dev/shm), else the system's folder for temporary files."""
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())


def with_mpi(command: Sequence[str], ranks: int) -> list[str]:
    """The command under mpirun when there is more than one rank."""
    return ["mpirun", "-np", str(ranks), *command] if ranks > 1 else list(command)


def require_mpirun(ranks: int, search: str | None = None) -> None:
    """Raise SolverFailed if more than one rank is wanted and there is no mpirun on `search` (default: this process's PATH)."""
    if ranks > 1 and shutil.which("mpirun", path=search) is None:
        raise SolverFailed(
            f"[solver] ranks = {ranks}: mpirun is not installed; install an MPI (on Debian: apt-get install openmpi-bin) "
            "or set ranks = 1"
        )


def mpi_environment(scratch: Path) -> dict[str, str]:
    """Settings by which mpirun starts the ranks of one simulation among several on this machine.

    Open MPI (4 and 5) alone reads them. Binding is off because each mpirun, knowing nothing of the others, would bind its
    ranks to the same first cores; its session files go to `scratch`.
    """
    settings = {
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "OMPI_MCA_hwloc_base_binding_policy": "none",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        "PRTE_MCA_hwloc_default_binding_policy": "none",
        "TMPDIR": str(scratch),
    }
    if os.geteuid() == 0:
        settings |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return settings


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
    """Run a program to its end and return the seconds it took; when this returns or raises, nothing of it is left.

    Args:
        command: the program, found on the environment's PATH or given as a path, and its arguments.
        directory: its working directory.
        environment: all of its environment.
        wall_time: seconds after which it is stopped and fails.
        abandoned: asked a few times a second; when true the program is stopped.
        log: file that its output (both streams) is appended to.
        follower: reads each line of the output.

    Raises:
        SolverFailed: it cannot be started, ended with a code other than 0, took too long, or the follower stopped it.
        Abandoned: `abandoned()` was true.
    """
    watched = _Watched(command, directory, environment, log, follower)
    deadline = watched.started + wall_time
    try:
        while watched.read(POLL):
            if abandoned():
                raise Abandoned(f"{watched.name} was stopped: the server no longer wants this simulation")
            if time.monotonic() > deadline:
                raise SolverFailed(
                    f"{watched.name} ran longer than wall_time = {wall_time:g} s and was stopped; "
                    "raise [solver] wall_time or make the simulation cheaper",
                    watched.tail,
                )
        return watched.outcome()
    finally:
        watched.close()


class _Watched:
    """A program under its guard, its output read line by line."""

    def __init__(
        self,
        command: Sequence[str],
        directory: Path,
        environment: Mapping[str, str],
        log: Path | None,
        follower: Follower | None,
    ) -> None:
        self.name = shlex.join(command)
        self.tail: deque[str] = deque(maxlen=TAIL)
        self.started = time.monotonic()
        self._follower = follower
        self._partial = b""
        self._open = True
        with ExitStack() as stack:
            self._log = stack.enter_context(log.open("ab", buffering=0)) if log is not None else None
            self._selector = stack.enter_context(selectors.DefaultSelector())
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", guard.__file__, *command],
                    cwd=directory,
                    env={**environment, "PWD": str(directory)},  # OpenFOAM believes it
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
        """Take what the program has printed, waiting at most `timeout` seconds; False when it has ended."""
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
        *lines, self._partial = (self._partial + chunk).split(b"\n")
        if not chunk and self._partial:
            lines, self._partial = [self._partial], b""
        for line in lines:
            self._take(line.decode(errors="replace").rstrip("\r"))
        return True

    def _take(self, line: str) -> None:
        if line.strip():
            self.tail.append(line)
        reason = self._follower.follow(line) if self._follower is not None else None
        if reason is not None:
            raise SolverFailed(f"{self.name} was stopped: {reason}", self.tail)

    def outcome(self) -> float:
        """Seconds that the ended program took; raises SolverFailed if it did not end well."""
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
        """End what still runs and let go of pipes and log."""
        with self._resources:
            self._lifeline.close()  # the guard ends the whole session and then itself
            try:
                killed = self._process.wait(guard.GRACE + 3) < 0
            except subprocess.TimeoutExpired:
                killed = True
            if killed:  # somebody ended the guard itself: its work falls to us
                guard.end_session(self._process.pid)
                self._process.wait()
