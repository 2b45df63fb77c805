"""`penstock check`, `run`, `record` and `resume`: the commands that read a study file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from penstock.cli.common import (
    OutDirectory,
    Overrides,
    RayAddress,
    RunDirectory,
    StudyFile,
    display,
    load_and_check,
)
from penstock.cli.failures import log_failures_in
from penstock.cli.slurm import check_profile

FIRST_STEP_SECONDS = 10.0


def check(
    study: StudyFile,
    overrides: Overrides = None,
    profile: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Check this profile of a cluster, too.", show_default=False),
    ] = None,
    first_step: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0.0,
            help="Run a Python solver until its first time step, for at most so long; 0 leaves it out. Default: 10, "
            "and 0 with --profile.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Check a study without running its simulations, and list everything that is wrong with it.

    The study's own Python modules are imported, its solver and model are made, and a Python solver runs until its first
    time step: do not check a stranger's study.
    """
    checked = load_and_check(study, overrides, here=profile is None)
    if profile is not None:
        check_profile(profile, checked)
    from penstock.study import StudyError
    from penstock.study.first_step import run_first_step

    if first_step is None:
        first_step = FIRST_STEP_SECONDS if profile is None else 0.0
    tried = run_first_step(checked, first_step)
    if tried.problem:
        raise StudyError([f"{study}: {tried.problem}"])
    solver = checked.solver
    print(
        f"{study}: nothing wrong found: {solver.simulations} simulations and {solver.validation_simulations} held out, "
        f"{len(checked.parameters.names)} parameters, fields {', '.join(checked.fields)}"
    )
    print(f"{study}: {tried.said}")


def run(
    study: StudyFile,
    out: OutDirectory = None,
    overrides: Overrides = None,
    ray_address: RayAddress = None,
    live: Annotated[
        bool, typer.Option("--live", help="Show the study in a browser meanwhile, as `penstock watch` does.")
    ] = False,
) -> None:
    """Run a study: solve and train at the same time, until training has ended.

    With --live on a terminal, the page stays open after the study until Ctrl-C; elsewhere it ends with the study.
    """
    from penstock.run import default_directory

    if live:
        import bokeh  # noqa: F401 - to say at once that it is not installed

    checked = load_and_check(study, overrides, server_here=ray_address is None)
    directory = out if out is not None else default_directory(checked.study.name)
    log_failures_in(directory)
    shown = display(checked)
    shown.log(f"study {checked.study.name}: run directory {directory}")
    from penstock.live import LivePage
    from penstock.run.run import Placement, run_study
    from penstock.run.signals import Signals

    page, signals = LivePage(directory, shown.log), Signals()
    try:
        code = run_study(
            checked,
            directory,
            shown,
            where=Placement(ray_address),
            signals=signals,
            begun=page.start if live else lambda: None,
        )
        if sys.stdout.isatty() and not signals.received:
            page.stay_open()
    finally:
        page.close()
    raise typer.Exit(code)


def record(
    study: StudyFile,
    out: Annotated[Path, typer.Option(metavar="FILE.h5", help="The file to write.", show_default=False)],
    overrides: Overrides = None,
) -> None:
    """Run the simulations of a study and write their time steps to a file, without training.

    Train on the file later, with [training] source in the study file.
    """
    checked = load_and_check(study, overrides, streamed=True)
    from penstock.run.record import record_study, recording_directory

    log_failures_in(recording_directory(out))
    raise typer.Exit(record_study(checked, out, display(checked)))


def resume(directory: RunDirectory, overrides: Overrides = None, ray_address: RayAddress = None) -> None:
    """Continue a study that was stopped or killed, from its last checkpoint."""
    from penstock.run import expect_changeable, expect_own, open_run, outcome
    from penstock.study import STUDY

    expect_changeable(overrides or [])
    open_run(directory)
    expect_own(directory)
    if outcome(directory) == "finished":
        print(f"{directory}: the study has finished; nothing is left to do")
        return
    from penstock.slurm.state import expect_no_jobs

    expect_no_jobs(directory)
    study = load_and_check(directory / STUDY, overrides, server_here=ray_address is None)
    from penstock.run.run import Placement, run_study

    raise typer.Exit(run_study(study, directory, display(study), resume=True, where=Placement(ray_address)))
