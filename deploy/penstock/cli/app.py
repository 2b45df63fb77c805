"""The command line: all commands, and the smallest of them.

Everything heavy is imported inside the command that needs it, so that `--help` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from penstock.cli import results, slurm, studies
from penstock.cli.compare import compare
from penstock.cli.keys import key
from penstock.cli.predict import predict
from penstock.cli.serve import serve
from penstock.cli.watch import watch

app = typer.Typer(
    help="Train neural surrogates of PDE solvers while the solvers run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
openfoam = typer.Typer(help="Build what OpenFOAM solvers need to stream.", no_args_is_help=True)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version as installed_version

        print(f"penstock {installed_version('penstock')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    del version


def worker(
    connect: Annotated[
        Path, typer.Option(metavar="FILE", help="connect.json of the run directory, or the file of a worker's key.")
    ],
) -> None:
    """Serve simulations of a running study, from any machine that reaches its server."""
    from penstock_solvers.worker import run_worker

    raise typer.Exit(run_worker(connect))


@openfoam.command()
def build(
    site: Annotated[
        Path | None,
        typer.Option(
            "--openfoam", metavar="DIR", help="OpenFOAM to build for; its etc/bashrc is sourced. Default: this shell's."
        ),
    ] = None,
) -> None:
    """Build the function object that streams fields out of OpenFOAM solvers, and print where the library is."""
    from penstock_solvers.openfoam import build as openfoam_build

    print(f"written to {openfoam_build.build(openfoam=site)}")


# The order is that of `penstock --help`.
app.command()(studies.run)
app.command()(studies.record)
app.command()(studies.resume)
app.command()(results.status)
app.command()(watch)
app.command()(results.report)
app.command()(studies.check)
app.command()(worker)
app.command()(predict)
app.command()(serve)
app.command()(results.export)
app.command()(results.plot)
app.command()(compare)
app.command()(slurm.submit)
app.command()(slurm.cancel)
app.command(hidden=True)(slurm.slurm_server)
app.add_typer(openfoam, name="openfoam")
app.add_typer(key, name="key")
