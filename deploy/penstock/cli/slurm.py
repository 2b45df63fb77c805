"""`penstock submit` and `penstock cancel`, and the command that the server's job runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from penstock.cli.common import OutDirectory, Overrides, RunDirectory, console, display, load_and_check
from penstock.cli.failures import log_failures_in

if TYPE_CHECKING:
    from penstock_server.study import Study


def submit(
    study: Annotated[
        Path,
        typer.Argument(
            metavar="STUDY",
            help="The study file (TOML) or its folder; or, to continue it, the run directory of a submitted study.",
            show_default=False,
        ),
    ],
    profile: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The profile of the cluster (TOML); default: the one in the run directory."),
    ] = None,
    scheduler: Annotated[Literal["slurm"], typer.Option(help="The scheduler of the cluster.")] = "slurm",
    out: OutDirectory = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when the job is submitted, without following the study.")
    ] = False,
    overrides: Overrides = None,
) -> None:
    """Run a study as jobs of a cluster: one for the server and an array for the workers, or one for both."""
    del scheduler
    from penstock.run import default_directory, expect_own, outcome, print_report, read_report
    from penstock.slurm.profile import load_profile
    from penstock.slurm.ray_nodes import check_nodes
    from penstock.slurm.scripts import submitted, used_profile
    from penstock.study import STUDY

    resume = submitted(study)
    if resume and (out is not None or overrides):
        raise typer.BadParameter(
            f"{study} is a run directory: expected no --out and no --set; the study goes on as it was"
        )
    if not resume and profile is None:
        raise typer.BadParameter(
            "--profile is missing: expected the cluster's profile; see docs/slurm.md for a complete one"
        )
    if resume:
        expect_own(study)
    settings = load_profile(profile) if profile is not None else used_profile(study)
    checked = load_and_check(study / STUDY if resume else study, overrides, here=False)
    check_nodes(checked, settings)
    directory = study if resume else out if out is not None else default_directory(checked.study.name)
    log_failures_in(directory)
    from penstock.slurm.submit import follow, submit_study

    say(f"study {checked.study.name}: run directory {directory}")
    if resume and outcome(directory) == "finished":
        say(f"{directory}: the study has finished; nothing is left to do")
        return
    submit_study(checked, settings, directory, resume=resume, log=say)
    if detach:
        say(f"show its progress with: penstock status {directory}")
        return
    try:
        code = follow(directory, say)
    except KeyboardInterrupt:
        say(f"the study goes on: penstock status {directory}\nstop it with: penstock cancel {directory}")
        raise typer.Exit(130) from None
    if report := read_report(directory):
        print_report(console(), report, directory)
    raise typer.Exit(code)


def cancel(directory: RunDirectory) -> None:
    """Stop a submitted study with a checkpoint, and cancel its jobs."""
    from penstock.slurm.submit import cancel_study

    cancel_study(directory, say)


def slurm_server(directory: RunDirectory) -> None:
    """Run a submitted study inside its job; slurm/server.sbatch calls this."""
    from penstock.study import make_openmp_wait_passively

    make_openmp_wait_passively()
    from penstock.run import open_run
    from penstock.slurm.server import serve_study

    raise typer.Exit(serve_study(directory, display(open_run(directory))))


def check_profile(path: Path, study: Study) -> None:
    """Check a profile, as far as this machine can: a warning is printed where it has no Slurm.

    Args:
        path: the profile.
        study: the study to submit with it.

    Raises:
        StudyError: with a line for each problem.
    """
    from penstock.slurm.commands import SlurmError
    from penstock.slurm.profile import load_profile
    from penstock.slurm.ray_nodes import check_nodes
    from penstock.slurm.submit import check_profile
    from penstock.study import StudyError

    profile = load_profile(path)
    check_nodes(study, profile)
    try:
        problems = check_profile(profile)
    except SlurmError as error:
        say(f"warning: {path}: Slurm was not asked about it: {error}")
        return
    if problems:
        raise StudyError([f"{path}: {problem}" for problem in problems])


def say(line: str) -> None:
    """Print a line at once, also into a log file."""
    print(line, flush=True)
