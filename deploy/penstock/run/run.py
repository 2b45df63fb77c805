"""Running a study on this machine: the run directory, the threads, the engine, its workers, the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from penstock.run.directory import hold, prepare, renew
from penstock.run.display import Display
from penstock.run.report import EXIT_CODES
from penstock.run.serve import Launch, serve
from penstock.run.signals import Signals
from penstock.study import (
    StudyError,
    ThreadBudget,
    keep_off_training_cores,
    make_importable,
    make_openmp_wait_passively,
    plan_threads,
)
from penstock.study.check import is_python_solver
from penstock_server.engines import Engine
from penstock_server.study import Study


@dataclass(frozen=True)
class Placement:
    """Where a study runs, where that is not this machine alone.

    Attributes:
        ray_address: of a Ray that runs already; None to start one for this study where the engine needs it.
        launch: makes the launcher of workers elsewhere; None to start them on this machine.
        cores: that this process may use; None to ask the operating system.
    """

    ray_address: str | None = None
    launch: Launch | None = None
    cores: int | None = None


HERE = Placement()


def run_study(
    study: Study,
    out: Path,
    display: Display,
    *,
    resume: bool = False,
    where: Placement = HERE,
    signals: Signals | None = None,
    begun: Callable[[], None] = lambda: None,
) -> int:
    """Run a study to its end.

    Args:
        study: checked (`penstock.study.check.check_study`).
        out: its run directory, new or empty; with `resume`, the one it ran in before.
        display: shows the progress and the outcome.
        resume: continue from the last checkpoint.
        where: where the study runs.
        signals: tells the caller afterwards which signal was received; default: signals of its own.
        begun: called when the run directory holds the study, before the server starts.

    Returns:
        The exit code: 0 finished, 1 stopped or failed.

    Raises:
        StudyError: `out` holds a study already, or one is running there; or the study runs on no Ray, and
            `where` has the address of one.
        PenstockError: the server cannot be started.
    """
    _expect_ray(study, where.ray_address)
    with hold(out):
        renew(study, out) if resume else prepare(study, out)
        make_importable(study)
        make_openmp_wait_passively()
        budget = plan_threads(study, where.cores, solvers_here=where.launch is None)
        display.log(str(budget))
        signals = signals or Signals()
        with signals.caught(), keep_off_training_cores(budget):
            begun()
            display.log(f"starting the server (engine: {engine_name(study)})")
            engine = _make_engine(study, out, budget, resume, where.ray_address, display.log)
            report = serve(
                engine,
                out,
                display,
                signals,
                workers=_workers(study),
                timeouts=study.timeouts,
                launch=where.launch,
            )
        display.report(report, out)
        if report["status"] == "stopped" and where.launch is None:
            joining = "" if where.ray_address is None else f" --ray-address {where.ray_address}"
            display.log(f"continue it with: penstock resume {out}{joining}")
        return EXIT_CODES[report["status"]]


def engine_name(study: Study) -> str:
    """The name of the engine that runs a study: "ray", "inline" or, for training from a recording, "offline"."""
    return study.study.engine if study.training.source is None else "offline"


def _expect_ray(study: Study, ray_address: str | None) -> None:
    if ray_address is None or engine_name(study) == "ray":
        return
    instead = ', or set [study] engine = "ray"' if study.training.source is None else ""
    raise StudyError(
        [
            f"--ray-address {ray_address}: this study runs on engine {engine_name(study)!r}, which uses no Ray; "
            f"leave it out{instead}"
        ]
    )


def _advanced_by_engine(study: Study) -> bool:
    """Whether the engine runs the solver in its own process, without workers."""
    return study.study.engine == "inline" and is_python_solver(study)


def _workers(study: Study) -> int:
    """How many worker processes the study needs."""
    return 0 if study.training.source is not None or _advanced_by_engine(study) else study.solver.concurrency


def _make_engine(
    study: Study, out: Path, budget: ThreadBudget, resume: bool, ray_address: str | None, log: Callable[[str], None]
) -> Engine:
    # Imported here: these import torch and ray, whose OpenMP reads its environment variables once.
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

    by_engine = _advanced_by_engine(study)
    solver = make_solver(study.solver.adapter or "", study.solver.options) if by_engine else None
    return InlineEngine(study, out, threads=budget.training, solver=solver, restore=restore)
