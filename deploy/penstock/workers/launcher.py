"""The local launcher: worker processes on this machine, restarted when they die, a limited number of times."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path

from penstock.workers.quick_deaths import QUICK_DEATHS, QUICK_SECONDS, QuickDeaths
from penstock_client import PenstockError

BACKOFF_SECONDS = 0.5
LOOK_SECONDS = 0.5  # between two looks at whether a worker is wanted, while it is not
LEFT_SECONDS = 2.0  # after a worker has ended by itself, until it is known whether the study has
GRACE_SECONDS = 4.0  # between SIGTERM and SIGKILL
TAIL_BYTES = 2000
HEAD_BYTES = 65536


class LocalLauncher:
    """Keeps up to `workers` processes running while there is something for them to do: workers, or what starts them elsewhere. One that was
    asked to go (SIGTERM) is replaced, too.

    One thread waits for each process. What is not wanted now may be later: a server that was restarted can have lost what had been done.

    Args:
        command: of each worker, by its number; asked anew at every start. logs: folder for worker-<n>.log.
        environment: of the workers. quick_deaths: so many in a row, while no simulation finishes, and the launcher gives up.
        wanted: how many workers have something to do now. finished: how many simulations have come to their end.
        on_exit: told pid, exit code and last words of every worker that ended with an error.
        on_failure: told why the launcher has given up.
    """

    _KILL = signal.SIGKILL  # what a worker that was given up gets: a stopped process ends by nothing less

    def __init__(
        self,
        command: Callable[[int], list[str]],
        logs: Path,
        *,
        workers: int,
        environment: Mapping[str, str],
        wanted: Callable[[], int],
        on_exit: Callable[[int, int, str], None],
        on_failure: Callable[[str], None],
        finished: Callable[[], int] = lambda: 0,
        quick_deaths: int = QUICK_DEATHS,
    ) -> None:
        self._command, self._logs, self._environment = command, logs, environment
        self._wanted, self._on_exit, self._on_failure = wanted, on_exit, on_failure
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._log_starts: dict[int, int] = {}  # where in a worker's log its present life begins
        self._killed: set[int] = set()  # by `kill`
        self._quick_deaths = QuickDeaths(quick_deaths, finished)
        self._threads = [
            threading.Thread(target=self._keep, args=(number,), name=f"penstock-worker-{number}", daemon=True)
            for number in range(workers)
        ]

    def start(self) -> None:
        """Start the workers."""
        for thread in self._threads:
            thread.start()

    def pids(self) -> list[int]:
        """Process ids of the workers that run now."""
        with self._lock:
            return [process.pid for process in self._processes.values()]

    def kill(self, given_up: Collection[tuple[str, int]]) -> list[int]:
        """Kill those of our workers that are among `given_up`, (host, process id): the server has given them up, frozen or stuck.

        Each is replaced, as one that has died. Returns the process ids of those that were killed.
        """
        if not given_up:
            return []
        with self._lock:
            running = [(n, p.pid) for n, p in self._processes.items() if p.pid not in self._killed]
            killed = [pid for number, pid in running if self._is_among(given_up, number, pid)]
            self._killed.update(killed)
        for pid in killed:
            with suppress(ProcessLookupError):
                os.killpg(pid, self._KILL)
        return killed

    def _is_among(self, given_up: Collection[tuple[str, int]], _number: int, pid: int) -> bool:
        """Whether the worker behind the process `pid` that was started last as that number is one of `given_up`."""
        return (socket.gethostname(), pid) in given_up

    def _said(self, number: int) -> str:
        """The first that worker `number` has written into its log since its last start."""
        with (self._logs / f"worker-{number}.log").open("rb") as log:
            log.seek(self._log_starts[number])
            return log.read(HEAD_BYTES).decode(errors="replace")

    def stop(self) -> None:
        """Ask every worker to go, and kill those that do not; returns when none is left."""
        self._stopping.set()
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._signal(signal.SIGKILL)
        for thread in self._threads:
            thread.join()

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:
            for process in self._processes.values():
                # It may end, and the thread that waits for it take note of that, between these two lines.
                if process.poll() is None:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, number)

    def _keep(self, number: int) -> None:
        """Run worker `number` again and again while it dies and there is work."""
        log = self._logs / f"worker-{number}.log"
        while not self._stopping.is_set():
            if self._wanted() <= number:
                self._stopping.wait(LOOK_SECONDS)
                continue
            try:
                command = self._command(number)
            except (PenstockError, OSError) as error:
                self._stopping.set()
                self._on_failure(f"worker {number} cannot be started: {error}")
                return
            begun = time.monotonic()
            with log.open("ab") as output, self._lock:
                if self._stopping.is_set():
                    return
                start = output.tell()
                process = subprocess.Popen(
                    command,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                self._processes[number], self._log_starts[number] = process, start
            code = process.wait()
            with self._lock:
                del self._processes[number]
                killed = process.pid in self._killed
                self._killed.discard(process.pid)
            if code == 0:
                self._stopping.wait(LEFT_SECONDS)
                continue
            last_words = tail(log)
            self._on_exit(process.pid, code, last_words)
            if self._stopping.is_set():
                return
            if killed:  # which says nothing about whether workers can live here
                continue
            with self._lock:
                self._quick_deaths.died(time.monotonic() - begun)
                deaths, too_many = self._quick_deaths.number, self._quick_deaths.too_many
            if too_many:
                self._stopping.set()
                self._on_failure(
                    f"{deaths} workers in a row died within {QUICK_SECONDS:.0f} s of their start; the last with exit code "
                    f"{code}: {last_words or 'it said nothing'} (see {log})"
                )
                return
            self._stopping.wait(BACKOFF_SECONDS * 2 ** min(deaths, QUICK_DEATHS))


def worker_command(connect: Path) -> list[str]:
    """A worker on this machine that does not outlive this process."""
    return [sys.executable, "-m", "penstock_solvers.worker", "--connect", str(connect), "--parent", str(os.getpid())]


def tail(log: Path) -> str:
    """The last lines of a log, at most TAIL_BYTES of it."""
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL_BYTES))
        return "\n".join(file.read().decode(errors="replace").strip().splitlines()[-20:])
