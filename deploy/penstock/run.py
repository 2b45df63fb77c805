"""Running a study on this machine: the run directory, threads, the engine, its workers, signals, the end."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from penstock.check import is_python_solver
from penstock.display import Display
from penstock.launcher import LocalLauncher
from penstock.run_directory import LOGS, hold, prepare
from penstock.study_file import make_importable
from penstock.threads import SOLVER_ENVIRONMENT, plan_threads, quiet_waiting
from penstock_server.config import Study
from penstock_server.engine import Engine, StudyStatus

TICK = 0.5  # seconds between two looks at how the study stands
STOP_PATIENCE = 6.0  # seconds that the engine has for its last checkpoint, of the ten that Ctrl-C may take
EXIT = {"finished": 0, "stopped": 1, "failed": 1}


class Signals:
    """SIGINT and SIGTERM: the first asks the study to stop, the second ends this process at once."""

    def __init__(self) -> None:
        self.received = ""
        self.on_second: Callable[[], None] = lambda: None

    @contextmanager
    def caught(self) -> Iterator[None]:
        before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
        self.catch()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def catch(self) -> None:
        """Install the handlers; again after Ray has installed its own."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.received:
            self.on_second()
            raise SystemExit(128 + number)
        self.received = signal.Signals(number).name


def run_study(study: Study, out: Path, display: Display, *, resume: bool = False) -> int:
    """Run a study to its end and return the exit code: 0 finished, 1 stopped or failed.

    Args:
        study: checked (`penstock.check.check_study`).
        out: its run directory, new or empty; with `resume`, the one it ran in before.

    Raises:
        StudyError: `out` holds a study already, or one is running there.
        PenstockError: the server cannot be started.
    """
    with hold(out):
        if not resume:
            prepare(study, out)
        make_importable(study)
        quiet_waiting()
        budget = plan_threads(study)
        display.log(str(budget))
        signals = Signals()
        with signals.caught():
            report = _serve(study, out, display, signals, threads=budget.training, resume=resume)
        display.report(report, out)
        if report["status"] == "stopped":
            display.log(f"continue it with: penstock resume {out}")
        return EXIT[report["status"]]


def _solves_itself(study: Study) -> bool:
    """Whether the engine advances the solver, so that no workers are needed."""
    return study.study.engine == "inline" and is_python_solver(study)


def _make_engine(study: Study, out: Path, threads: int, resume: bool) -> Engine:
    # Here and not above: these import torch and ray, whose OpenMP reads its settings once.
    if study.study.engine == "ray":
        from penstock_server.ray_engine import RayEngine

        return RayEngine(study, out, threads=threads)
    from penstock_server.checkpoint import load_latest
    from penstock_server.inline_engine import InlineEngine
    from penstock_server.restore import CHECKPOINTS
    from penstock_solvers.solver import make_solver

    solver = make_solver(study.solver.adapter or "", study.solver.options) if _solves_itself(study) else None
    restore = load_latest(out / CHECKPOINTS) if resume and (out / CHECKPOINTS).exists() else None
    return InlineEngine(study, out, threads=threads, solver=solver, restore=restore)


def _serve(
    study: Study, out: Path, display: Display, signals: Signals, *, threads: int, resume: bool
) -> dict[str, Any]:
    """From the engine's start to its report."""
    (out / LOGS).mkdir(exist_ok=True)
    display.log(f"starting the server (engine: {study.study.engine})")
    engine = _make_engine(study, out, threads, resume)
    connect = engine.start()
    signals.catch()
    latest = engine.status()

    def exited(pid: int, code: int, last_words: str) -> None:
        how = f"ended with code {code}" if code > 0 else f"was ended by {signal.Signals(-code).name}"
        display.log(f"a worker (pid {pid}) {how}; its log is in {out / LOGS}")
        engine.worker_exited(pid, code, last_words)

    def show(status: StudyStatus) -> None:
        nonlocal latest
        latest = status
        display.update(status)

    launcher = LocalLauncher(
        connect.absolute(),
        out / LOGS,
        workers=0 if _solves_itself(study) else study.solver.concurrency,
        environment=SOLVER_ENVIRONMENT,
        wanted=lambda: latest.wanted_workers,
        on_exit=exited,
        on_failure=engine.fail,
    )
    signals.on_second = launcher.stop
    try:
        launcher.start()
        with display:
            _follow(engine, signals, show, display.log)
        launcher.stop()
        return engine.close()
    finally:
        launcher.stop()


def _follow(engine: Engine, signals: Signals, show: Callable[[StudyStatus], None], log: Callable[[str], None]) -> None:
    """Show how the study stands until it has ended, or must."""
    while not engine.wait(TICK):
        if signals.received:
            log(f"{signals.received}: stopping with a checkpoint (once more: at once)")
            engine.stop(f"interrupted by {signals.received}")
            engine.wait(STOP_PATIENCE)
            return
        show(engine.status())
    show(engine.status())
