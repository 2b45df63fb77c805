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
from penstock.launcher import Launcher
from penstock.run_directory import LOGS, hold, prepare
from penstock.study_file import make_importable
from penstock.threads import plan_threads, quiet_waiting, solver_environment
from penstock_server.config import Study
from penstock_server.engine import Engine
from penstock_server.report import write_report

TICK = 0.5  # seconds between two looks at how the study stands
STOP_PATIENCE = 6.0  # seconds that the engine has for its last checkpoint, of the ten that Ctrl-C may take
WORKER_GRACE = 5.0  # seconds that workers have to leave by themselves once the study is over
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
        inline_solver = study.study.engine == "inline" and is_python_solver(study)
        budget = plan_threads(study, solvers_beside=not inline_solver)
        display.log(budget.line())
        signals = Signals()
        with signals.caught():
            report = _serve(study, out, display, signals, threads=budget.training, resume=resume)
        display.report(report, out)
        if report["status"] == "stopped":
            display.log(f"continue it with: penstock resume {out}")
        return EXIT[report["status"]]


def _make_engine(study: Study, out: Path, threads: int, resume: bool) -> Engine:
    # Here and not above: these import torch and ray, whose OpenMP reads its settings once.
    if study.study.engine == "ray":
        from penstock_server.ray_engine import RayEngine

        return RayEngine(study, out, threads=threads)
    from penstock_server.checkpoint import load_latest
    from penstock_server.inline_engine import InlineEngine
    from penstock_server.restore import CHECKPOINTS
    from penstock_solvers.solver import make_solver

    solver = make_solver(study.solver.adapter or "", study.solver.options) if is_python_solver(study) else None
    restore = load_latest(out / CHECKPOINTS) if resume and (out / CHECKPOINTS).exists() else None
    return InlineEngine(study, out, threads=threads, solver=solver, restore=restore)


def _serve(
    study: Study, out: Path, display: Display, signals: Signals, *, threads: int, resume: bool
) -> dict[str, Any]:
    """From the engine's start to its report."""
    engine = _make_engine(study, out, threads, resume)
    connect = engine.start()
    signals.catch()
    launcher = Launcher(
        connect,
        study.solver.concurrency,
        logs=out / LOGS,
        on_exit=engine.worker_exited,
        log=display.log,
        environment=solver_environment(),
    )
    signals.on_second = lambda: launcher.close(patience=0.0)
    try:
        with display:
            _follow(engine, launcher, display, signals)
        over = engine.wait(0)
        launcher.close(grace=WORKER_GRACE if over and not signals.received else 0.0)
        report = engine.close()
    finally:
        launcher.close(patience=0.5)
    if launcher.failure:
        report |= {"status": "failed", "message": launcher.failure}
        write_report(out, report)
    return report


def _follow(engine: Engine, launcher: Launcher, display: Display, signals: Signals) -> None:
    """Show how the study stands and keep its workers running, until it has ended or must."""
    while not engine.wait(TICK):
        if signals.received or launcher.failure:
            reason = launcher.failure or f"interrupted ({signals.received})"
            display.log("stopping: " + reason)
            engine.stop(reason)
            launcher.close(patience=2.0)
            engine.wait(STOP_PATIENCE)
            break
        status = engine.status()
        display.update(status)
        launcher.keep(status.wanted_workers)
    display.update(engine.status())
