"""The live page of a study that this process runs: a process of its own, which does not outlive this one."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from penstock_solvers.processes import guard

END_SECONDS = 5.0


class LivePage:
    """Starts `penstock watch` for a run directory and ends it.

    The process is in a session of its own, so that Ctrl-C reaches the study alone, and under a guard
    (`penstock_solvers.processes.guard`), which ends it when this process has died.

    Args:
        directory: the run directory.
        log: gets lines for the user.
    """

    def __init__(self, directory: Path, log: Callable[[str], None]) -> None:
        self._directory, self._log = directory, log
        self._process: subprocess.Popen[str] | None = None
        self.address = ""

    def start(self) -> None:
        """Start the page; its address is logged when it answers."""
        command = [sys.executable, "-m", "penstock.main", "watch", str(self._directory)]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        threading.Thread(target=self._follow, args=(self._process,), name="penstock-live", daemon=True).start()

    def stay_open(self) -> None:
        """Wait for Ctrl-C, if the page is there."""
        if self._process is None or self._process.poll() is not None:
            return
        self._log(f"the study has ended; its page stays at {self.address or 'its address'} until Ctrl-C")
        with suppress(KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._process.wait()

    def close(self) -> None:
        """End the page."""
        process, self._process = self._process, None
        if process is None or process.stdin is None:
            return
        process.stdin.close()  # the guard then ends the page and itself
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            guard.end_session(process.pid)
            process.wait()
        self._log(f"the live page has ended; see it again with: penstock watch {self._directory}")

    def _follow(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                text = line.rstrip()
                if text.startswith("live page: "):
                    self.address = text.removeprefix("live page: ")
                if text:
                    self._log(text)
