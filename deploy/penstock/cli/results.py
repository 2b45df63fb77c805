"""`penstock status`, `report`, `plot` and `export`: the commands that read a run directory."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from penstock.cli.common import RunDirectory, console
from penstock_client import PenstockError


def status(
    directory: RunDirectory,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show it again and again until the study has ended.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object; with --follow, one for each change.")
    ] = False,
    every: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="With --follow: time between two looks.")
    ] = 2.0,
) -> None:
    """Show the present state of a study, running or not."""
    import time

    from penstock.run import RunState, read_state
    from penstock.slurm.state import read_jobs
    from penstock_server.telemetry import strict_json

    def text(state: RunState) -> str:
        return strict_json(state.figures()) if as_json else "\n".join(state.lines())

    state = read_state(directory, read_jobs(directory))
    shown = text(state)
    print(shown, flush=True)
    while follow and state.running:
        time.sleep(every)
        state = read_state(directory, read_jobs(directory))
        if (new := text(state)) != shown:
            shown = new
            print(shown if as_json else f"\n{shown}", flush=True)


def report(
    directory: RunDirectory,
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json as it is.")] = False,
) -> None:
    """Show the outcome of a study."""
    from penstock.run import REPORT, open_run, print_report, read_report

    study = open_run(directory)
    found = read_report(directory)
    if found is None:
        raise PenstockError(
            f"{directory}: {study.study.name} has not ended, so there is no {REPORT} yet; "
            f"see `penstock status {directory}`"
        )
    if as_json:
        print((directory / REPORT).read_text(), end="")
    else:
        print_report(console(), found, directory)


def plot(
    directory: RunDirectory,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Default: DIR/plots.")] = None,
) -> None:
    """Draw loss, validation error, the buffer, and true fields beside their predictions."""
    from penstock_server.plots import plot_run

    for path in plot_run(directory, out):
        print(path)


class ExportFormat(StrEnum):
    """Formats of an exported model."""

    PT2 = "pt2"
    ONNX = "onnx"


def export(
    directory: RunDirectory,
    form: Annotated[
        ExportFormat,
        typer.Option("--format", help="A torch.export program, or an ONNX model (needs the extra onnx)."),
    ] = ExportFormat.PT2,
) -> None:
    """Export the model of the last checkpoint, with a model card.

    What is exported is evaluated before it is written: it gives the trained model's numbers to 1e-5.
    """
    from penstock.run import expect_own, open_run
    from penstock.study import make_importable
    from penstock_server.trainer_rank import export_checkpoint

    study = open_run(directory)
    expect_own(directory)
    make_importable(study)
    print(f"written to {export_checkpoint(study, directory, form.value)}")
