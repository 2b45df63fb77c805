"""Writing predictions: as numpy arrays, as HDF5, as VTK files, or as cases of OpenFOAM."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import h5py
import numpy as np
from numpy.typing import NDArray

from penstock.predict.openfoam import write_cases
from penstock.run import open_run
from penstock_client import PenstockError
from penstock_client.atomic_file import replacing
from penstock_server.surrogate import Prediction

Points = Sequence[Mapping[str, float]]
Writer = Callable[[Path, Points, Sequence[Prediction], Path, str], None]


class OutputError(PenstockError):
    """Predictions cannot be written in the format that was asked for."""


def write_predictions(
    out: Path, form: str, points: Points, predictions: Sequence[Prediction], directory: Path, name: str
) -> None:
    """Write predictions.

    Args:
        out: the file to write, or for "vtk" and "openfoam" a new or empty folder.
        form: one of FORMATS.
        points: parameter values by name, for each prediction.
        predictions: all at the same times.
        directory: run directory of the study, which may have the points of the mesh.
        name: of the study.

    Raises:
        PenstockError: the format does not fit the study, or the folder is not empty.
    """
    if form in ("vtk", "openfoam"):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise OutputError(f"--out {out}: expected a new or empty folder for --format {form}; choose another one")
        out.mkdir(parents=True, exist_ok=True)
    FORMATS[form](out, points, predictions, directory, name)


def _arrays(points: Points, predictions: Sequence[Prediction]) -> dict[str, NDArray[np.floating[Any]]]:
    """Arrays by name: with one point (times, *shape, components), with several (points, times, *shape, components)."""
    times = np.array(predictions[0].times)
    if len(points) == 1:
        return {"times": times, **predictions[0].arrays()}
    parameters = {name: np.array([point[name] for point in points]) for name in points[0]}
    of_each = [prediction.arrays() for prediction in predictions]
    fields = {name: np.stack([values[name] for values in of_each]) for name in of_each[0]}
    return {"times": times, **parameters, **fields}


def _write_npz(out: Path, points: Points, predictions: Sequence[Prediction], _directory: Path, _name: str) -> None:
    arrays: dict[str, Any] = _arrays(points, predictions)
    with replacing(out) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def _write_h5(out: Path, points: Points, predictions: Sequence[Prediction], _directory: Path, study: str) -> None:
    with replacing(out) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["study"] = study
        for name, values in _arrays(points, predictions).items():
            file[name] = values
        for name, value in points[0].items() if len(points) == 1 else ():
            file.attrs[name] = value


def _write_vtk(out: Path, points: Points, predictions: Sequence[Prediction], directory: Path, study: str) -> None:
    """One .vtu file for each point and time, and one .pvd file for each point, which names them with their times."""
    import meshio  # seldom needed, and slow to import

    for number, (_, prediction) in enumerate(zip(points, predictions, strict=True)):
        name = f"{study}-{number}"
        grids = {field: _grid(values.shape[1:-1], directory) for field, values in prediction.fields.items()}
        if len({nodes.shape for nodes, _ in grids.values()}) != 1:
            shapes = ", ".join(f"{field} {values.shape[1:-1]}" for field, values in prediction.fields.items())
            raise OutputError(f"--format vtk: the fields have different shapes ({shapes}); use --format h5")
        nodes, cells = next(iter(grids.values()))
        entries = []
        for k, time in enumerate(prediction.times):
            data = {field: _rows(values[k]) for field, values in prediction.arrays().items()}
            meshio.Mesh(nodes, cells, point_data=data).write(out / f"{name}-{k}.vtu")
            entries.append(f'    <DataSet timestep="{time:.9g}" file={quoteattr(f"{name}-{k}.vtu")}/>')
        lines = ['<?xml version="1.0"?>', '<VTKFile type="Collection" version="0.1">', "  <Collection>", *entries]
        (out / f"{name}.pvd").write_text("\n".join([*lines, "  </Collection>", "</VTKFile>", ""]))


def _rows(values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Values of a field at its points, (points,) or (points, components)."""
    rows = values.reshape(-1, values.shape[-1])
    return rows[:, 0] if rows.shape[1] == 1 else rows


def _grid(shape: tuple[int, ...], directory: Path) -> tuple[NDArray[np.floating[Any]], list[tuple[str, Any]]]:
    """Nodes and cells of the points of a field: those of mesh.h5, or a grid of unit cells."""
    mesh = directory / "mesh.h5"
    if len(shape) == 1 and mesh.is_file():
        with h5py.File(mesh) as file:
            if "C" in file and file["C"].shape[0] == shape[0]:
                centres = np.zeros((shape[0], 3))
                centres[:, : file["C"].shape[1]] = file["C"][()]
                return centres, [("vertex", np.arange(shape[0])[:, None])]
    if len(shape) > 3:
        raise OutputError(
            f"--format vtk: a field of {len(shape)} dimensions {shape}: expected at most 3; use --format h5"
        )
    axes = np.meshgrid(*(np.arange(n, dtype=np.float64) for n in shape), indexing="ij")
    nodes = np.zeros((math.prod(shape), 3))
    for column, axis in enumerate(reversed(axes)):  # the last axis of an array is x
        nodes[:, column] = axis.reshape(-1)
    numbers = np.arange(math.prod(shape)).reshape(shape)
    corners = {
        offset: numbers[tuple(slice(o, n - 1 + o) for o, n in zip(offset, shape, strict=True))].reshape(-1)
        for offset in itertools.product((0, 1), repeat=len(shape))
    }
    kinds: dict[int, tuple[str, list[tuple[int, ...]]]] = {
        1: ("line", [(0,), (1,)]),
        2: ("quad", [(0, 0), (0, 1), (1, 1), (1, 0)]),
        3: (
            "hexahedron",
            [(0, 0, 0), (0, 0, 1), (0, 1, 1), (0, 1, 0), (1, 0, 0), (1, 0, 1), (1, 1, 1), (1, 1, 0)],
        ),
    }
    kind, order = kinds[len(shape)]
    return nodes, [(kind, np.stack([corners[offset] for offset in order], axis=1))]


def _write_openfoam(out: Path, points: Points, predictions: Sequence[Prediction], directory: Path, _name: str) -> None:
    write_cases(out, points, predictions, open_run(directory))


FORMATS: dict[str, Writer] = {"npz": _write_npz, "h5": _write_h5, "vtk": _write_vtk, "openfoam": _write_openfoam}
"""Writers by name of the format."""
