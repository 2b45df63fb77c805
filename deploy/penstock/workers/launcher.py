"""The local launcher: worker processes on this machine, replaced when they die, a limited number of times."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from penstock.workers.quick_deaths import QUICK_DEATHS, QuickDeaths
from penstock.workers.study_link import StudyLink
from penstock_client import PenstockError
from penstock_server.network import DEFAULT
from penstock_server.study import TimeoutsSection
from penstock_solvers.introduction import introduced

BACKOFF_SECONDS = 0.5  # after the first quick death; doubled after each further one
LOOK_SECONDS = 0.5  # between two looks at whether a worker is wanted, while it is not
LEFT_SECONDS = 2.0  # grace period: a worker that exits may do so because the study has ended
TAIL_BYTES = 2000
HEAD_BYTES = 65536

_log = logging.getLogger("penstock.workers")


@dataclass(frozen=True)
class WorkerProcesses:
    """The processes that a local launcher keeps running.

    Attributes:
        count: how many at most.
        command: makes the command line of a worker from its number, 0 to count - 1; called at every start.
        logs: folder of worker-<number>.log, to which a worker's output is appended.
        environment: all environment variables of the processes.
        quick_deaths: number of quick deaths in a row, while no simulation finishes, at which the launcher gives up; at
            least 2 * count, since all may die at the same moment, and once more.
        kill_signal: what ends the process of a worker that was given up. A stopped process ends by SIGKILL alone.
        elsewhere: the process here only starts the worker on another machine, as srun does: the worker is then known
            by the host and process id that it writes into its log.
        timeouts: the study's [timeouts].
        key: returns the name of the key with which worker `number` connects.
    """

    count: int
    command: Callable[[int], list[str]]
    logs: Path
    environment: Mapping[str, str]
    quick_deaths: int = QUICK_DEATHS
    kill_signal: signal.Signals = signal.SIGKILL
    elsewhere: bool = False
    timeouts: TimeoutsSection = field(default_factory=TimeoutsSection)
    key: Callable[[int], str] = lambda _number: DEFAULT

    def log(self, number: int) -> Path:
        """The log of worker `number`."""
        return self.logs / f"worker-{number}.log"


@dataclass(frozen=True)
class _Running:
    """A process that runs, and the byte of the worker's log at which its output begins."""

    process: subprocess.Popen[bytes]
    log_start: int


class LocalLauncher:
    """Keeps worker processes running while the study has something for them to do.

    One thread for each worker starts its process, waits for its end and starts the next one. A worker that is not
    wanted now may be wanted later: a restarted server can have lost what had been done. A worker that was asked to end
    (SIGTERM) by another program is replaced, too.

    Args:
        processes: the processes to keep running.
        study: what the launcher asks, and tells that it has given up.
        on_exit: called with process id, exit code and last lines of the log of every worker that ended.
    """

    def __init__(self, processes: WorkerProcesses, study: StudyLink, on_exit: Callable[[int, int, str], None]) -> None:
        self._processes, self._study, self._on_exit = processes, study, on_exit
        self._stopping = threading.Event()
        self._lock = threading.Lock()  # guards what follows
        self._running: dict[int, _Running] = {}  # by worker number
        self._killed: set[int] = set()  # process ids that `kill` has killed
        most = max(processes.quick_deaths, 2 * processes.count)
        self._quick_deaths = QuickDeaths(most, processes.timeouts.quick_death, study.finished_simulations)
        self._threads = [
            threading.Thread(target=self._keep, args=(number,), name=f"penstock-worker-{number}", daemon=True)
            for number in range(processes.count)
        ]

    def start(self) -> None:
        """Start the workers."""
        for thread in self._threads:
            thread.start()

    def pids(self) -> list[int]:
        """Process ids of the workers that run now."""
        with self._lock:
            return [running.process.pid for running in self._running.values()]

    def kill(self, given_up: Collection[tuple[str, int, str]]) -> list[int]:
        """Kill the workers that the server has given up because they are frozen or stuck; each is replaced.

        Args:
            given_up: host name, process id and name of the key of each client that the server has given up, on any
                machine. What a client says of its process counts only with the key of the worker that runs there.

        Returns:
            The process ids of those that were killed by this call.
        """
        if not given_up:
            return []
        with self._lock:
            running = {n: r for n, r in self._running.items() if r.process.pid not in self._killed}
            killed = [r.process.pid for n, r in running.items() if self._is_among(given_up, n, r)]
            self._killed.update(killed)
        for pid in killed:
            _signal_session(pid, self._processes.kill_signal)
        return killed

    def stop(self) -> None:
        """Ask every worker to end, and kill those that do not; return when none is left."""
        self._stopping.set()
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + self._processes.timeouts.worker_exit
        started = [thread for thread in self._threads if thread.ident is not None]
        for thread in started:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._signal(signal.SIGKILL)
        for thread in started:
            thread.join()

    def _is_among(self, given_up: Collection[tuple[str, int, str]], number: int, running: _Running) -> bool:
        key = self._processes.key(number)
        return not self._workers_of(number, running).isdisjoint(
            (host, pid) for host, pid, its in given_up if its == key
        )

    def _workers_of(self, number: int, running: _Running) -> set[tuple[str, int]]:
        """Host and process id of the worker that a process is, or has started elsewhere."""
        if not self._processes.elsewhere:
            return {(socket.gethostname(), running.process.pid)}
        with self._processes.log(number).open("rb") as log:
            log.seek(running.log_start)
            return set(introduced(log.read(HEAD_BYTES).decode(errors="replace")))

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:
            for running in self._running.values():
                if running.process.poll() is None:
                    _signal_session(running.process.pid, number)

    def _keep(self, number: int) -> None:
        """Keep worker `number` running; an error here ends the study, which would otherwise wait for ever."""
        try:
            while not self._stopping.is_set():
                if self._study.wanted_workers() <= number:
                    self._stopping.wait(LOOK_SECONDS)
                else:
                    self._run(number)
        except PenstockError as error:
            self._give_up(f"worker {number} cannot be started: {error}")
        except Exception as error:
            _log.exception("worker %s cannot be kept running", number)
            self._give_up(f"worker {number} cannot be kept running: {type(error).__name__}: {error}")

    def _run(self, number: int) -> None:
        """Run worker `number` once, and wait for as long as its end suggests."""
        begun = time.monotonic()
        try:
            running = self._start(number)
        except OSError as error:  # no memory or no room for the log, for example, which may pass
            self._note_death(begun, f"worker {number} cannot be started: {error}")
            return
        code = running.process.wait()
        with self._lock:
            del self._running[number]
            killed = running.process.pid in self._killed
            self._killed.discard(running.process.pid)
        if code == 0:
            # Of a worker that has left in order the server knows already; one that has not may hold a simulation.
            self._on_exit(running.process.pid, code, "it left without a word to the server")
            self._stopping.wait(LEFT_SECONDS)
            return
        log = self._processes.log(number)
        last_lines = tail(log)
        self._on_exit(running.process.pid, code, last_lines)
        # A worker that was killed from here says nothing about whether workers can live on this machine.
        if not killed and not self._stopping.is_set():
            last = f"the last with exit code {code}: {last_lines or 'it printed nothing'} (see {log})"
            self._note_death(begun, last)

    def _start(self, number: int) -> _Running:
        command = self._processes.command(number)
        with self._processes.log(number).open("ab") as output:
            log_start = output.tell()
            process = subprocess.Popen(
                command,
                env=self._processes.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        running = _Running(process, log_start)
        with self._lock:
            self._running[number] = running
            late = self._stopping.is_set()
        if late:  # `stop` may have sent its signals before this process was there; it has nothing to hand back yet
            _signal_session(process.pid, self._processes.kill_signal)
        return running

    def _note_death(self, begun: float, last: str) -> None:
        """Count an end with an error, and give up or wait before the next start.

        Args:
            begun: when it was started, by time.monotonic().
            last: describes this end, for the reason of giving up.
        """
        with self._lock:
            self._quick_deaths.died(time.monotonic() - begun)
            deaths, too_many = self._quick_deaths.number, self._quick_deaths.too_many
        if too_many:
            seconds = self._processes.timeouts.quick_death
            self._give_up(f"{deaths} workers in a row died within {seconds:.0f} s of their start; {last}")
        else:
            self._stopping.wait(BACKOFF_SECONDS * 2 ** min(deaths, QUICK_DEATHS))

    def _give_up(self, reason: str) -> None:
        if not self._stopping.is_set():
            self._stopping.set()
            self._study.fail(reason)


def _signal_session(pid: int, number: signal.Signals) -> None:
    """Send a signal to a worker and all that it has started; a worker that has ended meanwhile is no error."""
    with suppress(ProcessLookupError):
        os.killpg(pid, number)


def worker_command(connect: Path) -> list[str]:
    """The command line of a worker on this machine that does not outlive this process.

    Args:
        connect: connect.json, or the file of the worker's own key.
    """
    return [sys.executable, "-m", "penstock_solvers.worker", "--connect", str(connect), "--parent", str(os.getpid())]


def tail(log: Path, lines: int = 20) -> str:
    """The last lines of a log, of its last TAIL_BYTES bytes at most."""
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL_BYTES))
        return "\n".join(file.read().decode(errors="replace").strip().splitlines()[-lines:])
