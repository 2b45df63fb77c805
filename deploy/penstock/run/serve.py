"""From the start of an engine to its report, with worker processes around it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.run.directory import LOGS
from penstock.run.display import Display
from penstock.run.signals import Signals
from penstock.study import SOLVER_ENVIRONMENT
from penstock.workers import Launcher, LocalLauncher, StudyLink, WorkerProcesses, worker_command
from penstock_server.engines import Engine, StudyStatus
from penstock_server.network import CONNECT_FILE, local_connect_file, local_worker
from penstock_server.study import TimeoutsSection

TICK = 0.5  # seconds between two looks at the state of the study

Launch = Callable[[StudyLink], Launcher]
"""Makes the launcher of workers that do not run on this machine."""


def serve(
    engine: Engine,
    out: Path,
    display: Display,
    signals: Signals,
    *,
    workers: int,
    timeouts: TimeoutsSection,
    launch: Launch | None = None,
    stopping: str = "stopping with a checkpoint",
) -> dict[str, Any]:
    """Run an engine from its start to its report.

    Args:
        engine: a new engine.
        out: the run directory, where logs go.
        display: shows the progress.
        signals: caught already; the first one stops the study.
        workers: number of worker processes on this machine.
        timeouts: the study's [timeouts].
        launch: makes the launcher of workers elsewhere, in place of those on this machine.
        stopping: what a line says is happening after the first signal.

    Returns:
        The report of the engine.
    """
    (out / LOGS).mkdir(exist_ok=True)
    engine.start()
    signals.catch()
    latest = engine.status()

    def exited(pid: int, code: int, last_lines: str) -> None:
        if code:
            how = f"ended with code {code}" if code > 0 else f"was ended by {signal.Signals(-code).name}"
            display.log(f"a worker (pid {pid}) {how}; its log is in {out / LOGS}")
        engine.worker_exited(pid, code, last_lines)

    def show(status: StudyStatus) -> None:
        nonlocal latest
        latest = status
        for pid in launcher.kill(status.given_up):
            display.log(f"a worker (pid {pid}) has been silent or stuck for too long and is replaced")
        display.update(status)

    link = StudyLink(lambda: latest.wanted_workers, lambda: latest.simulations.finished, engine.fail)
    launcher = launch(link) if launch is not None else LocalLauncher(_processes(out, workers, timeouts), link, exited)
    signals.on_second = launcher.stop
    try:
        launcher.start()
        if launch is None and workers == 0 and latest.wanted_workers:
            display.log(
                "no workers are started here ([solver] concurrency = 0): start them with "
                f"`penstock worker --connect {out / CONNECT_FILE}`"
            )
        with display:
            _follow(engine, signals, show, display.log, stopping, timeouts.interrupt)
        launcher.stop()
        return engine.close()
    finally:
        launcher.stop()


def _processes(out: Path, workers: int, timeouts: TimeoutsSection) -> WorkerProcesses:
    """The workers on this machine, each with the file of its own key where it has one."""
    return WorkerProcesses(
        count=workers,
        command=lambda number: worker_command(local_connect_file(out.absolute(), number)),
        key=local_worker,
        logs=out / LOGS,
        environment={**os.environ, **SOLVER_ENVIRONMENT},
        timeouts=timeouts,
    )


def _follow(
    engine: Engine,
    signals: Signals,
    show: Callable[[StudyStatus], None],
    log: Callable[[str], None],
    stopping: str,
    patience: float,
) -> None:
    """Show the state of the study until it has ended, or `patience` seconds after a signal."""
    while not engine.wait(TICK):
        if signals.received:
            log(f"{signals.received}: {stopping} (once more: at once)")
            engine.stop(f"interrupted by {signals.received}")
            engine.wait(patience)
            return
        show(engine.status())
    show(engine.status())
