import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from penstock_server.plots import PlotError, plot_run
from penstock_server.plots.curves import read_metrics
from penstock_server.plots.magnitude import magnitude
from penstock_server.plots.mesh import Cloud, Grid, Line, layout
from penstock_server.validation import FILE, Snapshot, Snapshots, write_snapshots


def grid_centres(nx: int, ny: int, nz: int = 1) -> np.ndarray:
    """As blockMesh numbers cells: x fastest."""
    z, y, x = np.meshgrid((np.arange(nz) + 0.5) * 0.1, np.arange(ny) * 0.5, np.arange(nx) * 1.0, indexing="ij")
    return np.column_stack([x.ravel(), y.ravel(), z.ravel()])


def ring(n: int = 1500) -> np.ndarray:
    """Cell centres of an unstructured ring, numbered at random: a mesh with a hole."""
    radius = np.linspace(1.0, 2.0, 15)
    points = np.concatenate(
        [
            np.column_stack([r * np.cos(a), r * np.sin(a)])
            for r in radius
            for a in [np.linspace(0, 2 * np.pi, int(50 * r), False)]
        ]
    )
    points = np.random.default_rng(0).permutation(points)[:n]
    return np.column_stack([points, np.full(len(points), 0.05)])


def write_run(directory: Path, shape: tuple[int, ...], components: int, centres: np.ndarray | None = None) -> None:
    points = int(np.prod(shape))
    items = []
    for step in (3, 6):
        true = np.sin(np.arange(points * components) / 30 + step).reshape(*shape, components).astype(np.float32)
        items.append(Snapshot(64, step, {"a": 1.5, "time": float(step)}, {"T": true}, {"T": true * 1.05}))
    write_snapshots(directory / FILE, Snapshots(1200, items))
    if centres is not None:
        with h5py.File(directory / "mesh.h5", "w") as file:
            file["cell_centres"] = centres


def metrics_lines(n: int) -> list[str]:
    lines = []
    for i in range(n):
        train = {
            "kind": "train", "time": 1.0 * i, "batches": 10 * i, "loss": 1.0 / (i + 1) if i else None, "samples_per_second": 100.0,
            "buffer_population": 5 * i, "buffer_unseen": i, "received": 7 * i,
        }  # fmt: skip
        fields = {"U": {"relative_l2": 0.5}, "p": {"relative_l2": 0.3}}
        validation = {
            "kind": "validation", "time": 1.0 * i, "batches": 10 * i, "mse": 1.0, "relative_l2": 0.4, "relative_l2_p99": 0.6,
            "fields": fields,
        }  # fmt: skip
        lines += [json.dumps(train), json.dumps(validation)]
    return lines


def assert_picture(path: Path) -> None:
    """A PNG that opens, of a readable size, and is not one colour."""
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 250
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(pixels[::7], axis=0)) > 20


@pytest.mark.parametrize("n", [1, 3, 60])
def test_training_curves(tmp_path: Path, n: int) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        "\n".join(metrics_lines(n)) + '\n{"kind": "tra'
    )  # the last line is being written
    (path,) = plot_run(tmp_path)
    assert path == tmp_path / "plots" / "training.png"
    assert_picture(path)


def test_training_without_validation_yet(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(metrics_lines(3)[0] + "\n")
    training, validation = read_metrics(tmp_path / "metrics.jsonl")
    assert (len(training), len(validation)) == (1, 0)
    assert_picture(plot_run(tmp_path)[0])


@pytest.mark.parametrize(
    ("shape", "components", "centres", "want"),
    [
        ((20, 30), 1, None, Grid),
        ((4, 6, 8), 1, None, Grid),
        ((600,), 3, grid_centres(30, 20), Grid),
        ((600,), 6, grid_centres(10, 15, 4), Grid),
        ((40,), 1, None, Line),
        ((40,), 3, grid_centres(40, 1), Line),
        ((1104,), 3, ring(1104), Cloud),
        ((1104,), 1, ring(1104), Cloud),
    ],
)
def test_fields_of_every_kind_of_mesh(
    tmp_path: Path, shape: tuple[int, ...], components: int, centres: np.ndarray | None, want: type
) -> None:
    assert isinstance(layout(shape, centres), want)
    write_run(tmp_path, shape, components, centres)
    (path,) = plot_run(tmp_path, tmp_path / "elsewhere")
    assert path == tmp_path / "elsewhere" / "simulation_64_T.png"
    assert_picture(path)


def test_cells_of_a_structured_case_land_where_they_are() -> None:
    centres = np.random.default_rng(1).permutation(grid_centres(5, 4))
    grid = layout((20,), centres)
    assert isinstance(grid, Grid)
    np.testing.assert_allclose(centres[grid.order][..., 0], np.tile(np.arange(5.0), (4, 1)))
    np.testing.assert_allclose(centres[grid.order][..., 1], np.tile(np.arange(4.0)[:, None] * 0.5, (1, 5)))


def test_a_slice_of_a_three_dimensional_mesh_is_one_layer_through_its_middle() -> None:
    centres = grid_centres(6, 5, 4)
    grid = layout((120,), centres)
    assert isinstance(grid, Grid)
    assert grid.order.shape == (5, 6)
    assert len(np.unique(centres[grid.order.ravel(), 2])) == 1
    assert grid.note.startswith("slice at z = ")


def test_no_triangle_bridges_a_hole() -> None:
    centres = ring()
    cloud = layout((len(centres),), centres)
    assert isinstance(cloud, Cloud)
    triangles = cloud.triangulation.get_masked_triangles()
    middles = centres[triangles, :2].mean(axis=1)
    assert np.hypot(*middles.T).min() > 0.95
    assert len(triangles) > 1.8 * (len(centres) - 150)


@pytest.mark.parametrize(
    ("values", "want"),
    [([[-2.0]], -2.0), ([[3.0, 4.0, 0.0]], 5.0), ([[1.0, 1.0, 0, 1.0, 0, 1.0]], 5**0.5), ([[1.0] * 9], 3.0)],
)
def test_magnitudes(values: list, want: float) -> None:
    assert magnitude(np.array(values)) == pytest.approx(want)


def test_a_constant_field_predicted_exactly_is_drawn(tmp_path: Path) -> None:
    values = np.zeros((5, 5, 1), np.float32)
    write_snapshots(
        tmp_path / FILE, Snapshots(1, [Snapshot(0, 0, {"a": 1.0, "time": 0.0}, {"T": values}, {"T": values})])
    )
    assert plot_run(tmp_path)[0].is_file()


def test_nothing_to_draw_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(PlotError, match=r"nothing to draw in .*: expected metrics\.jsonl"):
        plot_run(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("not json\n")
    with pytest.raises(PlotError, match=r"metrics\.jsonl, line 1: "):
        plot_run(tmp_path)
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / FILE).write_bytes(b"not HDF5")
    with pytest.raises(PlotError, match="cannot be drawn"):
        plot_run(tmp_path)


def test_matplotlib_is_imported_only_to_draw() -> None:
    code = "import sys, penstock_server.plots; print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
