"""The local launcher: starts workers on this machine, watches them, restarts those that die, and leaves none behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

QUICK = 5.0  # a worker that lives shorter than this many seconds probably cannot work at all
MAX_QUICK_DEATHS = 3  # in a row, in one place
BACKOFF = (0.0, 0.5, 1.0, 2.0, 5.0)  # seconds before a place is filled again, by quick exits in a row
TAIL_LINES = 20
TAIL_BYTES = 8192

OnExit = Callable[[int, int | None, str], None]
"""Called with pid, exit code (negative: the signal's number) and last words of a worker; from a thread of its own."""


@dataclass
class _Place:
    """Room for one worker at a time."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    quick_exits: int = 0
    not_before: float = 0.0
    watcher: threading.Thread | None = field(default=None, repr=False)


def describe_exit(code: int) -> str:
    """ "ended with code 1" or "was ended by SIGKILL"."""
    if code >= 0:
        return f"ended with code {code}"
    known = {s.value: s.name for s in signal.Signals}
    return f"was ended by {known.get(-code, f'signal {-code}')}"


def log_tail(path: Path) -> list[str]:
    """The last lines of a log file."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    return [line for line in lines if line.strip()][-TAIL_LINES:]


class Launcher:
    """Keeps up to `workers` worker processes running.

    `keep` starts processes and must always be called from the same, long-lived thread: the kernel ties a child to the thread
    that started it. A thread per worker waits for its end.

    Args:
        connect: connect.json of the running server. workers: at most this many at a time.
        logs: folder for worker-<n>.log. on_exit: told of every worker that ends before `close`.
        log: takes a line about what the launcher does. environment: on top of this process's.
        command: how a worker is started, python's arguments; default: `-m penstock_solvers.worker --connect ...`.

    Attributes:
        failure: why no worker can work, once that is clear; "" before.
    """

    def __init__(
        self,
        connect: Path,
        workers: int,
        *,
        logs: Path,
        on_exit: OnExit,
        log: Callable[[str], None],
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        self._module = list(command or ("penstock_solvers.worker", "--connect", str(connect.absolute())))
        self._environment = {**os.environ, **(environment or {})}
        self._logs, self._on_exit, self._log = logs, on_exit, log
        self._places = [_Place(number) for number in range(workers)]
        self._lock = threading.Lock()
        self._closing = False
        self.failure = ""
        logs.mkdir(parents=True, exist_ok=True)

    def keep(self, wanted: int) -> None:
        """Start what is missing of `wanted` workers (at most as many as there are places), unless a place must wait."""
        with self._lock:
            alive = sum(place.process is not None for place in self._places)
            for place in self._places:
                if alive >= wanted or self._closing or self.failure:
                    return
                if place.process is None and time.monotonic() >= place.not_before:
                    self._start(place)
                    alive += 1

    @property
    def pids(self) -> list[int]:
        """Of the workers that run now."""
        with self._lock:
            return [place.process.pid for place in self._places if place.process is not None]

    def close(self, grace: float = 0.0, patience: float = 3.0) -> None:
        """End all workers and what they started: after `grace` seconds SIGTERM, after `patience` more SIGKILL."""
        with self._lock:
            self._closing = True
            running = [(p.process, p.watcher) for p in self._places if p.process is not None and p.watcher is not None]
        self._join(running, grace)
        for process, _ in running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        self._join(running, patience)
        for process, watcher in running:
            if process.poll() is None:
                _kill_group(process.pid)
            watcher.join()

    @staticmethod
    def _join(running: Sequence[tuple[subprocess.Popen[bytes], threading.Thread]], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for _, watcher in running:
            watcher.join(max(0.0, deadline - time.monotonic()))

    def _log_path(self, place: _Place) -> Path:
        return self._logs / f"worker-{place.number}.log"

    def _start(self, place: _Place) -> None:
        with self._log_path(place).open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "penstock.tied", str(os.getpid()), *self._module],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that Ctrl-C reaches us alone, and a group can be ended whole
            )
        place.process, place.started = process, time.monotonic()
        place.watcher = threading.Thread(
            target=self._watch, args=(place, process), name=f"penstock-worker-{place.number}", daemon=True
        )
        place.watcher.start()

    def _watch(self, place: _Place, process: subprocess.Popen[bytes]) -> None:
        code = process.wait()
        _kill_group(process.pid)  # what it started and left behind
        last = log_tail(self._log_path(place))
        with self._lock:
            closing = self._closing
        if not closing:
            # Before the place is free: the server must know of the death when the next worker asks for work.
            self._on_exit(process.pid, code, "\n".join([f"worker {place.number} {describe_exit(code)}", *last]))
        with self._lock:
            place.process = None
            quick = time.monotonic() - place.started < QUICK
            place.quick_exits = place.quick_exits + 1 if quick else 0
            place.not_before = time.monotonic() + BACKOFF[min(place.quick_exits, len(BACKOFF) - 1)]
            if code != 0 and place.quick_exits >= MAX_QUICK_DEATHS and not self.failure:
                self.failure = (
                    f"worker {place.number} died {place.quick_exits} times within {QUICK:g} s of its start; the last time it "
                    f"{describe_exit(code)}; its log {self._log_path(place)} ends:\n" + "\n".join(last or ["(empty)"])
                )
        if code != 0 and not closing:
            self._log(f"worker {place.number} (pid {process.pid}) {describe_exit(code)}; log: {self._log_path(place)}")


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # PermissionError: the group is empty but its leader not yet reaped
        os.killpg(pid, signal.SIGKILL)
