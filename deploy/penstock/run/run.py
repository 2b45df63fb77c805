"""Running a study on this machine: the run directory, threads, the engine, its workers, signals, the end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from penstock.run.directory import LOGS, hold, prepare, renew
from penstock.run.display import Display
from penstock.study import (
    SOLVER_ENVIRONMENT,
    StudyError,
    ThreadBudget,
    cores_for_the_rest,
    make_importable,
    plan_threads,
    quiet_waiting,
)
from penstock.study.check import is_python_solver
from penstock.workers import LocalLauncher, worker_command
from penstock_server.engines import Engine, StudyStatus
from penstock_server.network import CONNECT_FILE, local_connect_file
from penstock_server.study import Study

TICK = 0.5  # seconds between two looks at how the study stands
STOP_PATIENCE = 6.0  # seconds that the engine has for its last checkpoint, of the ten that Ctrl-C may take
EXIT = {"finished": 0, "stopped": 1, "failed": 1}


CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Launcher(Protocol):
    """Keeps workers running from `start` to `stop`, which may be called more than once."""

    def start(self) -> None: ...

    def kill(self, given_up: Collection[tuple[str, int]]) -> list[int]: ...

    def stop(self) -> None: ...


Launch = Callable[[Callable[[], int], Callable[[], int], Callable[[str], None]], Launcher]
"""Makes the launcher of workers elsewhere, from how many have something to do, how many simulations have finished, and who is told that it
has given up."""


class Signals:
    """SIGINT, SIGTERM, and SIGUSR1 (a batch system's, before the time is up).

    The first asks the study to stop, the second ends this process at once.
    """

    def __init__(self) -> None:
        self.received = ""
        self.on_second: Callable[[], None] = lambda: None

    @contextmanager
    def caught(self) -> Iterator[None]:
        before = {s: signal.getsignal(s) for s in CAUGHT}
        self.catch()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def catch(self) -> None:
        """Install the handlers; again after Ray has installed its own."""
        for number in CAUGHT:
            signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.received:
            self.on_second()
            raise SystemExit(128 + number)
        self.received = signal.Signals(number).name


def run_study(
    study: Study,
    out: Path,
    display: Display,
    *,
    resume: bool = False,
    ray_address: str | None = None,
    launch: Launch | None = None,
    cores: int | None = None,
    signals: Signals | None = None,
) -> int:
    """Run a study to its end and return the exit code: 0 finished, 1 stopped or failed.

    Args:
        study: checked (`penstock.study.check.check_study`).
        out: its run directory, new or empty; with `resume`, the one it ran in before.
        ray_address: of a Ray that runs already, in place of one for this study.
        launch: for workers that run elsewhere, in place of those on this machine.
        cores: that this process may use, where the system does not say. signals: to know afterwards which was received.

    Raises:
        StudyError: `out` holds a study already, or one is running there; a ray_address for a study that does not run on Ray.
        PenstockError: the server cannot be started.
    """
    if ray_address is not None and engine_name(study) != "ray":
        raise StudyError(
            [
                f"--ray-address {ray_address}: this study runs on engine {engine_name(study)!r}, which uses no Ray; leave it out"
                + (', or set [study] engine = "ray"' if study.training.source is None else "")
            ]
        )
    with hold(out):
        renew(study, out) if resume else prepare(study, out)
        make_importable(study)
        quiet_waiting()
        budget = plan_threads(study, cores, solvers_here=launch is None)
        display.log(str(budget))
        signals = signals or Signals()
        with signals.caught(), cores_for_the_rest(budget):
            display.log(f"starting the server (engine: {engine_name(study)})")
            engine = _make_engine(study, out, budget, resume, ray_address, display.log)
            report = serve(engine, out, display, signals, workers=_workers(study), launch=launch)
        display.report(report, out)
        if report["status"] == "stopped" and launch is None:
            joining = "" if ray_address is None else f" --ray-address {ray_address}"
            display.log(f"continue it with: penstock resume {out}{joining}")
        return EXIT[report["status"]]


def engine_name(study: Study) -> str:
    """As the user knows it."""
    return study.study.engine if study.training.source is None else "offline"


def _solves_itself(study: Study) -> bool:
    """Whether the engine advances the solver itself."""
    return study.study.engine == "inline" and is_python_solver(study)


def _workers(study: Study) -> int:
    return 0 if study.training.source is not None or _solves_itself(study) else study.solver.concurrency


def _make_engine(
    study: Study, out: Path, budget: ThreadBudget, resume: bool, ray_address: str | None, log: Callable[[str], None]
) -> Engine:
    # Here and not above: these import torch and ray, whose OpenMP reads its settings once.
    if engine_name(study) == "ray":
        from penstock_server.engines.ray import make_ray_engine

        return make_ray_engine(study, out, threads=budget.training, own_cores=budget.own, address=ray_address, log=log)
    from penstock_server.checkpoint import load_latest_if_any
    from penstock_server.trainer_rank import CHECKPOINTS

    restore = load_latest_if_any(out / CHECKPOINTS) if resume else None
    for warning in () if restore is None else restore.skipped:
        log(f"warning: {warning}")
    if engine_name(study) == "offline":
        from penstock_server.engines.offline import OfflineEngine

        return OfflineEngine(study, out, threads=budget.training, restore=restore)
    from penstock_server.engines.inline import InlineEngine
    from penstock_solvers.solver import make_solver

    solver = make_solver(study.solver.adapter or "", study.solver.options) if _solves_itself(study) else None
    return InlineEngine(study, out, threads=budget.training, solver=solver, restore=restore)


def serve(
    engine: Engine,
    out: Path,
    display: Display,
    signals: Signals,
    *,
    workers: int,
    launch: Launch | None = None,
    stopping: str = "stopping with a checkpoint",
) -> dict[str, Any]:
    """From an engine's start to its report, with up to `workers` worker processes around it, or those that `launch` cares for.

    out: where their logs go. stopping: what is said to happen on the first signal.
    """
    (out / LOGS).mkdir(exist_ok=True)
    engine.start()
    signals.catch()
    latest = engine.status()

    def exited(pid: int, code: int, last_words: str) -> None:
        how = f"ended with code {code}" if code > 0 else f"was ended by {signal.Signals(-code).name}"
        display.log(f"a worker (pid {pid}) {how}; its log is in {out / LOGS}")
        engine.worker_exited(pid, code, last_words)

    def show(status: StudyStatus) -> None:
        nonlocal latest
        latest = status
        for pid in launcher.kill(status.given_up):
            display.log(f"a worker (pid {pid}) has been silent or stuck for too long and is replaced")
        display.update(status)

    launcher: Launcher
    if launch is not None:
        launcher = launch(lambda: latest.wanted_workers, lambda: latest.simulations.finished, engine.fail)
    else:
        launcher = LocalLauncher(
            lambda number: worker_command(local_connect_file(out.absolute(), number)),
            out / LOGS,
            workers=workers,
            environment={**os.environ, **SOLVER_ENVIRONMENT},
            wanted=lambda: latest.wanted_workers,
            finished=lambda: latest.simulations.finished,
            on_exit=exited,
            on_failure=engine.fail,
        )
    signals.on_second = launcher.stop
    try:
        launcher.start()
        if launch is None and workers == 0 and latest.wanted_workers:
            display.log(
                f"no workers are started here ([solver] concurrency = 0): start them with `penstock worker --connect {out / CONNECT_FILE}`"
            )
        with display:
            _follow(engine, signals, show, display.log, stopping)
        launcher.stop()
        return engine.close()
    finally:
        launcher.stop()


def _follow(
    engine: Engine,
    signals: Signals,
    show: Callable[[StudyStatus], None],
    log: Callable[[str], None],
    stopping: str,
) -> None:
    """Show how the study stands until it has ended, or must."""
    while not engine.wait(TICK):
        if signals.received:
            log(f"{signals.received}: {stopping} (once more: at once)")
            engine.stop(f"interrupted by {signals.received}")
            engine.wait(STOP_PATIENCE)
            return
        show(engine.status())
    show(engine.status())
