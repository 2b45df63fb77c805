"""`penstock predict`: the trained surrogate at one or many points."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock.cli.common import RunDirectory


class Format(StrEnum):
    """Formats of the predicted fields."""

    NPZ = "npz"
    H5 = "h5"
    VTK = "vtk"
    OPENFOAM = "openfoam"


def predict(
    directory: RunDirectory,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="name=value", help="The value of a parameter; give every parameter."),
    ] = None,
    points: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Many points instead of --set: one column for each parameter."),
    ] = None,
    step: Annotated[
        list[float] | None,
        typer.Option(
            "--step",
            metavar="K",
            help='Time step (or time, with [samples] time = "physical"); may be repeated. Default: the last one.',
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Write the fields to this file; for vtk and openfoam to this folder."),
    ] = None,
    form: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="Format of --out: numpy arrays, HDF5, VTK files, or a case of OpenFOAM with a folder for each time. "
            "Default: by the ending of --out, or npz.",
            show_default=False,
        ),
    ] = None,
    initial: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npz", help="For a model of windows: the fields one time step before the first --step."
        ),
    ] = None,
) -> None:
    """Predict the fields at points of the parameter space with the trained surrogate.

    model/surrogate.pt2 is a program: load none of a stranger.
    """
    if bool(settings) == (points is not None):
        raise typer.BadParameter("expected the parameters of one point (--set name=value) or --points FILE.csv")
    one = _parameters(settings or [])
    if form is None:
        form = Format.H5 if out is not None and out.suffix in (".h5", ".hdf5") else Format.NPZ
    elif out is None:
        raise typer.BadParameter(f"--format {form}: expected --out as well, where the fields go")
    _expect_folder(out)
    from penstock.predict import read_points, write_predictions
    from penstock_server.surrogate import Surrogate

    surrogate = Surrogate.load(directory)
    asked = [one] if points is None else read_points(points, surrogate.parameters)
    fields = _read_fields(initial) if initial is not None else None
    predictions = [surrogate.predict(point, step or None, initial=fields) for point in asked]
    for warning in dict.fromkeys(warning for prediction in predictions for warning in prediction.warnings):
        print(f"warning: {warning}", file=sys.stderr)
    if points is None:
        for name, values in predictions[0].fields.items():
            for k, (time, field) in enumerate(zip(predictions[0].times, values, strict=True)):
                print(
                    f"{name} at {time:g}: shape {field.shape}, "
                    f"min {field.min():.6g}, mean {field.mean():.6g}, max {field.max():.6g}"
                    + (f", mean spread {predictions[0].spread[name][k].mean():.3g}" if predictions[0].spread else "")
                )
    else:
        times = len(predictions[0].times)
        print(f"{len(asked)} points, {times} times each, fields {', '.join(predictions[0].fields)}")
    if out is not None:
        write_predictions(out, form.value, asked, predictions, directory, surrogate.card["study"])
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
