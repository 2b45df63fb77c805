"""`penstock status`, `report`, `plot`, `export` and `predict`: the commands that read a run directory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

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


def export(directory: RunDirectory) -> None:
    """Export the model of the last checkpoint as a torch.export program with a model card."""
    from penstock.run import expect_own, open_run
    from penstock.study import make_importable
    from penstock_server.trainer_rank import export_checkpoint

    study = open_run(directory)
    expect_own(directory)
    make_importable(study)
    print(f"written to {export_checkpoint(study, directory)}")


def predict(
    directory: RunDirectory,
    settings: Annotated[
        list[str], typer.Option("--set", metavar="name=value", help="The value of a parameter; give every parameter.")
    ],
    step: Annotated[
        list[float] | None,
        typer.Option(
            "--step",
            metavar="K",
            help='Time step (or time, with [samples] time = "physical"); may be repeated. Default: the last one.',
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.npz", help="Write the fields to this file.")] = None,
    initial: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npz", help="For a model of windows: the fields one time step before the first --step."
        ),
    ] = None,
) -> None:
    """Predict the fields at one point of the parameter space with the trained surrogate.

    model/surrogate.pt2 is a program: load none of a stranger.
    """
    parameters = _parameters(settings)
    _expect_folder(out)
    from penstock_server.surrogate import Surrogate

    fields = _read_fields(initial) if initial is not None else None
    prediction = Surrogate.load(directory).predict(parameters, step or None, initial=fields)
    for warning in prediction.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for name, values in prediction.fields.items():
        digits = 6 if values.dtype == "float32" else 12
        for time, field in zip(prediction.times, values, strict=True):
            least, mean, most = (f"{number:.{digits}g}" for number in (field.min(), field.mean(), field.max()))
            print(f"{name} at {time:g}: shape {field.shape}, min {least}, mean {mean}, max {most}")
    if out is not None:
        import numpy as np

        with out.open("wb") as file:
            arrays: dict[str, Any] = {"times": np.array(prediction.times), **prediction.fields}
            np.savez(file, **arrays)
        print(f"written to {out}")


def _parameters(settings: list[str]) -> dict[str, float]:
    """Values by name, from "name=value" each."""
    values = {}
    for text in settings:
        name, equals, value = text.partition("=")
        try:
            values[name.strip()] = float(value)
        except ValueError:
            equals = ""
        if not equals:
            raise typer.BadParameter(f"--set {text}: expected name=number, such as --set viscosity=0.01")
    return values


def _expect_folder(out: Path | None) -> None:
    """Check that a file can be written, before the time that computing its content takes."""
    from penstock.study import StudyError

    if out is not None and not out.absolute().parent.is_dir():
        raise StudyError([f"--out {out}: there is no folder {out.absolute().parent}; make it, or choose another --out"])


def _read_fields(path: Path) -> dict[str, Any]:
    """The arrays of an .npz file, by name."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"--initial {path} cannot be read as .npz: {error}") from error
