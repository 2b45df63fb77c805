"""The command line. Everything heavy is imported inside the command that needs it, so that `--help` answers at once."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.common import Overrides, RayAddress, RunDirectory, StudyFile, console, display, load_and_check
from penstock.cli.compare import compare
from penstock.cli.keys import key
from penstock.cli.slurm import cancel, check_profile, slurm_server, submit
from penstock_client import PenstockError

if TYPE_CHECKING:
    pass

app = typer.Typer(
    help="Train neural surrogates of PDE solvers while the solvers run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
openfoam = typer.Typer(help="What concerns OpenFOAM.", no_args_is_help=True)
app.add_typer(openfoam, name="openfoam")
app.add_typer(key, name="key")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"penstock {installed_version('penstock')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    del version


@app.command()
def run(
    study: StudyFile,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Run directory; default: runs/<study>-<n>.")] = None,
    overrides: Overrides = None,
    ray_address: RayAddress = None,
) -> None:
    """Run a study to its end."""
    from penstock.run import default_directory

    checked = load_and_check(study, overrides, server_here=ray_address is None)
    directory = out if out is not None else default_directory(checked.study.name)
    shown = display(checked)
    shown.log(f"study {checked.study.name}: run directory {directory}")
    from penstock.run.run import run_study

    raise typer.Exit(run_study(checked, directory, shown, ray_address=ray_address))


@app.command()
def record(
    study: StudyFile,
    out: Annotated[Path, typer.Option(metavar="FILE.h5", help="The file to write.", show_default=False)],
    overrides: Overrides = None,
) -> None:
    """Write a study's time steps to a file, to train on them later, instead of training while they come."""
    checked = load_and_check(study, overrides, streamed=True)
    from penstock.run.record import record_study

    raise typer.Exit(record_study(checked, out, display(checked)))


@app.command()
def resume(directory: RunDirectory, overrides: Overrides = None, ray_address: RayAddress = None) -> None:
    """Continue a study that was stopped, or that died, from its last checkpoint."""
    import json

    from penstock.run import REPORT, expect_changeable, open_run

    expect_changeable(overrides or [])
    study = open_run(directory)
    report = directory / REPORT
    if report.is_file() and json.loads(report.read_text())["status"] == "finished":
        print(f"{directory}: the study has finished; nothing is left to do")
        return
    from penstock.slurm.state import expect_no_jobs

    expect_no_jobs(directory)
    study = load_and_check(directory / "study.toml", overrides, server_here=ray_address is None)
    from penstock.run.run import run_study

    raise typer.Exit(run_study(study, directory, display(study), resume=True, ray_address=ray_address))


@app.command()
def status(directory: RunDirectory) -> None:
    """Tell how a study stands, running or not."""
    from penstock.run import read_state
    from penstock.slurm.state import read_jobs

    print("\n".join(read_state(directory, read_jobs(directory)).lines()))


@app.command()
def report(
    directory: RunDirectory,
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json as it is.")] = False,
) -> None:
    """Show a study's outcome."""
    import json

    from penstock.run import REPORT, open_run, print_report

    study = open_run(directory)
    path = directory / REPORT
    if not path.is_file():
        raise PenstockError(
            f"{directory}: {study.study.name} has not ended, so there is no {REPORT} yet; see `penstock status {directory}`"
        )
    if as_json:
        print(path.read_text(), end="")
    else:
        print_report(console(), json.loads(path.read_text()), directory)


@app.command()
def check(
    study: StudyFile,
    overrides: Overrides = None,
    profile: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The profile that it is to be submitted with.", show_default=False),
    ] = None,
) -> None:
    """Find everything that is wrong with a study, as far as that is possible without running it."""
    checked = load_and_check(study, overrides, here=profile is None)
    if profile is not None:
        check_profile(profile, checked)
    solver = checked.solver
    print(
        f"{study}: nothing wrong found: {solver.simulations} simulations and {solver.validation_simulations} held out, "
        f"{len(checked.parameters.names)} parameters, fields {', '.join(checked.fields)}"
    )


@app.command()
def worker(
    connect: Annotated[Path, typer.Option(metavar="FILE", help="connect.json in the study's run directory.")],
) -> None:
    """Serve simulations of a running study, from any machine that reaches its server."""
    from penstock_solvers.worker import run_worker

    raise typer.Exit(run_worker(connect))


def _parameters(settings: list[str]) -> dict[str, float]:
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


@app.command()
def predict(
    directory: RunDirectory,
    settings: Annotated[
        list[str], typer.Option("--set", metavar="name=value", help="A parameter's value; give every parameter.")
    ],
    step: Annotated[
        list[float] | None,
        typer.Option(
            "--step",
            metavar="K",
            help="Time step (or time, where the study says so); may be repeated. Default: the last.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.npz", help="Write the fields there.")] = None,
    initial: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npz", help="For a model of windows: the fields one time step before the first --step."
        ),
    ] = None,
) -> None:
    """Ask the trained surrogate for the fields at one point of the parameter space."""
    parameters = _parameters(settings)
    from penstock_server.surrogate import Surrogate

    fields = _read_fields(initial) if initial is not None else None
    prediction = Surrogate.load(directory).predict(parameters, step or None, initial=fields)
    for warning in prediction.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for name, values in prediction.fields.items():
        for time, field in zip(prediction.times, values, strict=True):
            print(
                f"{name} at {time:g}: shape {field.shape}, min {field.min():.6g}, mean {field.mean():.6g}, max {field.max():.6g}"
            )
    if out is not None:
        import numpy as np

        with out.open("wb") as file:
            arrays: dict[str, Any] = {"times": np.array(prediction.times), **prediction.fields}
            np.savez(file, **arrays)
        print(f"written to {out}")


def _read_fields(path: Path) -> dict[str, Any]:
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"--initial {path} cannot be read as .npz: {error}") from error


@app.command()
def export(directory: RunDirectory) -> None:
    """Export the model of a study's last checkpoint as a torch.export program with a model card."""
    from penstock.run import open_run
    from penstock.study import make_importable
    from penstock_server.trainer_rank import export_checkpoint

    study = open_run(directory)
    make_importable(study)
    print(f"written to {export_checkpoint(study, directory)}")


@app.command()
def plot(
    directory: RunDirectory,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Default: DIR/plots.")] = None,
) -> None:
    """Draw loss, validation error, the buffer, and true fields beside their predictions."""
    from penstock_server.plots import plot_run

    for path in plot_run(directory, out):
        print(path)


app.command()(compare)
app.command()(submit)
app.command()(cancel)
app.command(hidden=True)(slurm_server)


@openfoam.command()
def build() -> None:
    """Build the function object that streams fields out of OpenFOAM solvers, and say where the library went."""
    from penstock_solvers.openfoam import build as openfoam_build

    print(f"written to {openfoam_build.build()}")
