"""Arguments and helpers that several commands share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console

from penstock.cli.failures import log_failures_in
from penstock.cli.lasting_output import LastingOutput
from penstock_client.imports import without_collection

if TYPE_CHECKING:
    from penstock.run import Display
    from penstock_server.study import Study

StudyFile = Annotated[
    Path,
    typer.Argument(
        metavar="STUDY", help="The study file (TOML), or the folder that holds it as study.toml.", show_default=False
    ),
]
RunDirectory = Annotated[
    Path,
    typer.Argument(metavar="DIR", help="The run directory of a study.", show_default=False, callback=log_failures_in),
]
OutDirectory = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="The run directory to make; default: runs/<study>-<n>.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="table.key=value", help="Override a key of the study file; may be repeated."),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Use a Ray that runs already instead of starting one: auto, HOST:PORT or ray://HOST:PORT.",
        show_default=False,
    ),
]


def load_and_check(
    path: Path, overrides: list[str] | None, *, streamed: bool = False, here: bool = True, server_here: bool = True
) -> Study:
    """Read and check a study; print warnings on standard error.

    Args:
        path: the study file or its folder.
        overrides: "table.key=value" each.
        streamed: the solver is to run, whatever [training] source says.
        here: the study is to run on this machine.
        server_here: its server is to run on this machine.

    Returns:
        The study, without faults that can be found before it runs.

    Raises:
        StudyError: with a line for each problem.
    """
    with without_collection():
        from penstock.study import StudyError, load_study, make_openmp_wait_passively

    make_openmp_wait_passively()
    study = load_study(path, overrides or [])
    if streamed:
        study = study.model_copy(update={"training": study.training.model_copy(update={"source": None})})
    with without_collection():
        from penstock.study.check import check_study, warnings_for

    problems = check_study(study, here=here and server_here)
    if problems:
        raise StudyError([f"{path}: {problem}" for problem in problems])
    for warning in warnings_for(study, here=here):
        print(f"warning: {path}: {warning}", file=sys.stderr)
    return study


def console(file: IO[str] | None = None) -> Console:
    """Make the console for output of more than a line.

    Args:
        file: where to; None for standard output.
    """
    out = Console(file=file)
    return out if out.is_terminal else Console(file=file, width=140)  # a log file has no width to wrap at


def display(study: Study) -> Display:
    """Make the display of a study's progress; a study goes on when its output goes nowhere."""
    from penstock.run import Display

    out = cast("IO[str]", LastingOutput(sys.stdout))
    return Display(study.study.name, study.training.batch_size, console(out))
