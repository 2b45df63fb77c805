"""Predictions are written so that others' programs read the same numbers."""

from __future__ import annotations

from pathlib import Path

import h5py
import meshio
import numpy as np
import pytest

from penstock.predict import read_points, write_predictions
from penstock.predict.files import OutputError
from penstock.predict.points import PointsError
from penstock_server.surrogate import Prediction

RNG = np.random.default_rng(3)
TIMES = [2.0, 5.0]


def prediction(*shape: int, components: int = 1) -> Prediction:
    fields = {"T": RNG.random((len(TIMES), *shape, 1), np.float32)}
    if components > 1:
        fields["U"] = RNG.random((len(TIMES), *shape, components), np.float32)
    return Prediction(list(TIMES), fields, [])


def test_one_point_as_numpy_arrays_and_as_hdf5(tmp_path: Path) -> None:
    made = prediction(4, 3, components=2)
    write_predictions(tmp_path / "x.npz", "npz", [{"a": 1.5}], [made], tmp_path, "mine")
    with np.load(tmp_path / "x.npz") as file:
        assert set(file) == {"times", "T", "U"}
        np.testing.assert_array_equal(file["U"], made.fields["U"])
    write_predictions(tmp_path / "x.h5", "h5", [{"a": 1.5}], [made], tmp_path, "mine")
    with h5py.File(tmp_path / "x.h5") as h5:
        assert dict(h5.attrs) == {"study": "mine", "a": 1.5}
        np.testing.assert_array_equal(h5["T"][()], made.fields["T"])


def test_many_points_have_an_axis_of_their_own(tmp_path: Path) -> None:
    made = [prediction(4), prediction(4), prediction(4)]
    points = [{"a": float(i), "b": -1.0} for i in range(3)]
    write_predictions(tmp_path / "x.npz", "npz", points, made, tmp_path, "mine")
    with np.load(tmp_path / "x.npz") as file:
        assert file["a"].tolist() == [0.0, 1.0, 2.0]
        assert file["T"].shape == (3, 2, 4, 1)
        np.testing.assert_array_equal(file["T"][1], made[1].fields["T"])


@pytest.mark.parametrize(("shape", "kind"), [((5,), "line"), ((4, 3), "quad"), ((2, 3, 4), "hexahedron")])
def test_a_grid_as_vtk(tmp_path: Path, shape: tuple[int, ...], kind: str) -> None:
    made = prediction(*shape, components=3)
    write_predictions(tmp_path / "out", "vtk", [{"a": 1.0}], [made], tmp_path, "mine")
    mesh = meshio.read(tmp_path / "out" / "mine-0-1.vtu")
    assert [cells.type for cells in mesh.cells] == [kind]
    assert len(mesh.cells[0].data) == np.prod([n - 1 for n in shape])
    np.testing.assert_array_equal(mesh.point_data["T"], made.fields["T"][1].reshape(-1))
    np.testing.assert_array_equal(mesh.point_data["U"], made.fields["U"][1].reshape(-1, 3))
    # The last axis of the arrays is x: a step along it moves by 1 in x.
    assert (mesh.points[1] - mesh.points[0]).tolist() == [1.0, 0.0, 0.0]
    assert 'timestep="5" file="mine-0-1.vtu"' in (tmp_path / "out" / "mine-0.pvd").read_text()


def test_points_of_a_mesh_as_vtk(tmp_path: Path) -> None:
    centres = RNG.random((6, 3))
    with h5py.File(tmp_path / "mesh.h5", "w") as file:
        file["C"] = centres
    write_predictions(tmp_path / "out", "vtk", [{"a": 1.0}], [prediction(6)], tmp_path, "mine")
    mesh = meshio.read(tmp_path / "out" / "mine-0-0.vtu")
    np.testing.assert_array_equal(mesh.points, centres)
    assert [cells.type for cells in mesh.cells] == ["vertex"]


def test_a_folder_that_is_used_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "notes").touch()
    with pytest.raises(OutputError, match="expected a new or empty folder"):
        write_predictions(tmp_path, "vtk", [{"a": 1.0}], [prediction(4)], tmp_path, "mine")


def test_points_of_a_table(tmp_path: Path) -> None:
    table = tmp_path / "points.csv"
    table.write_text("\ufeffname, b, a\nfirst, 2, 1e-3\n\n second, 4, 5\n")
    assert read_points(table, ("a", "b")) == [{"a": 0.001, "b": 2.0}, {"a": 5.0, "b": 4.0}]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a\n1\n", "line 1: expected one column for each of a, b; there is none, or more than one, for b"),
        ("a, b, b\n1, 2, 3\n", "for b"),
        ("a, b\n1, x\n", "line 2: b = 'x', expected a number"),
        ("a, b\n1\n", "line 2: b = '', expected a number"),
        ("a, b\n", "no points"),
        (None, "cannot be read"),
    ],
)
def test_a_table_that_cannot_be_used(tmp_path: Path, text: str | None, says: str) -> None:
    table = tmp_path / "points.csv"
    if text is not None:
        table.write_text(text)
    with pytest.raises(PointsError, match=says):
        read_points(table, ("a", "b"))
