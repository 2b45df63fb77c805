"""The function object streams the fields and the mesh of a real OpenFOAM solver to the real server."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from cavity import CAVITY, CELLS, STEPS, cavity_of, decomposed, foam, internal_field, pictures, solve

from live_server import live_server, worker

pytestmark = pytest.mark.openfoam


def test_every_time_step_of_the_cavity_arrives_as_the_solver_has_it(
    tutorial: Callable[..., Path], studied: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    case = cavity_of(tutorial)
    report = studied(case, CAVITY, "icoFoam")
    assert report["samples"]["unique"] == STEPS
    seen = list(pictures(tmp_path / "run"))
    assert sorted(step for step, _ in seen) == list(range(STEPS))
    for step, fields in seen:
        time_directory = case / f"{0.005 * (step + 1):.6g}"
        for name, components in (("U", 3), ("p", 1)):
            np.testing.assert_allclose(
                fields[name].reshape(CELLS, components),
                internal_field(time_directory / name, components),
                rtol=1e-6,
                atol=1e-9,
            )


def test_the_mesh_is_sent_once(
    tutorial: Callable[..., Path], studied: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    studied(cavity_of(tutorial), CAVITY, "icoFoam")
    with h5py.File(tmp_path / "run" / "mesh.h5") as mesh:
        centres, volumes = np.array(mesh["cell_centres"]), np.array(mesh["cell_volumes"])
    assert centres.shape == (CELLS, 3)
    axis = (np.arange(20) + 0.5) * 0.005
    np.testing.assert_allclose(centres[:20, 0], axis, rtol=1e-12)  # blockMesh numbers x fastest
    np.testing.assert_allclose(centres[::20, 1], axis, rtol=1e-12)
    np.testing.assert_allclose(volumes, 0.005 * 0.005 * 0.01, rtol=1e-9)


def test_a_mesh_larger_than_a_message_is_sent_in_slices(
    tutorial: Callable[..., Path], studied: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    case = tutorial("incompressible/icoFoam/cavity/cavity", "(p)", end_time="0.0001", mesh=[])
    for name, old, new in (("blockMeshDict", "(20 20 1)", "(200 200 1)"), ("controlDict", "0.005;", "0.0001;")):
        file = case / "system" / name
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))
    foam(case, "blockMesh")
    report = studied(case, {"p": {}}, "icoFoam", max_message="800 KiB")  # the cell centres have 938 KiB
    assert report["samples"]["unique"] == 1
    axis = (np.arange(200) + 0.5) * 0.0005
    with h5py.File(tmp_path / "run" / "mesh.h5") as mesh:
        centres = np.array(mesh["cell_centres"]).reshape(200, 200, 3)
    np.testing.assert_allclose(centres[..., 0], np.broadcast_to(axis, (200, 200)), rtol=1e-9)
    np.testing.assert_allclose(centres[..., 1], np.broadcast_to(axis[:, None], (200, 200)), rtol=1e-9)


@pytest.mark.parametrize(
    ("entries", "steps"),
    [
        (["executeInterval 3;"], [2, 5, 8, 11, 14, 17]),
        (["executeControl timeStep;", "executeInterval 3;", "writeControl none;"], [2, 5, 8, 11, 14, 17]),
        (["executeControl writeTime;", "executeInterval 6;", "writeControl none;"], [5, 11, 17]),
        (["sendInitial true;"], [-1, *range(STEPS)]),
        (["timeEnd 0.05;"], list(range(10))),
        (["executeInterval 8;", "sendLast true;"], [7, 15, 19]),
        (["executeInterval 1000;", "sendLast true;"], [19]),
    ],
)
def test_which_time_steps_are_sent(
    tutorial: Callable[..., Path],
    studied: Callable[..., dict[str, Any]],
    tmp_path: Path,
    entries: list[str],
    steps: list[int],
) -> None:
    """Also when the last time step is not sent, where OpenFOAM does not call end()."""
    case = cavity_of(tutorial, "(p)", *entries)
    report = studied(case, {"p": {}}, "icoFoam")
    assert report["samples"]["unique"] == len(steps)
    for number, fields in pictures(tmp_path / "run"):
        if steps[number] >= 0:
            written = internal_field(case / f"{0.005 * (steps[number] + 1):.6g}" / "p", 1)
            np.testing.assert_allclose(fields["p"].reshape(-1, 1), written, rtol=1e-6, atol=1e-9)


def test_another_solver_needs_the_entry_alone(
    tutorial: Callable[..., Path], studied: Callable[..., dict[str, Any]]
) -> None:
    case = tutorial(
        "incompressible/pisoFoam/RAS/cavity", "(U p k nut)", "executeControl writeTime;", "writeControl none;"
    )
    report = studied(case, {"U": {"components": 3}, "p": {}, "k": {}, "nut": {}}, "pisoFoam")
    assert report["samples"]["unique"] == 20  # the tutorial writes each 100th of its 2000 time steps


def test_tensors_of_every_kind(
    tutorial: Callable[..., Path], studied: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    before = (
        'gradU { type grad; libs ("libfieldFunctionObjects.so"); field U; result gradU; '
        "writeControl writeTime; }\n"
        'R { type turbulenceFields; libs ("libfieldFunctionObjects.so"); field R; fields (R); writeControl writeTime; }\n'
    )
    case = tutorial(
        "incompressible/pisoFoam/RAS/cavity", '(gradU "turbulenceProperties:R" p)', before=before, end_time="0.1"
    )
    control = case / "system" / "controlDict"
    control.write_text(control.read_text().replace("writeInterval   100;", "writeInterval   20;"))
    studied(case, {"gradU": {"components": 9}, "turbulenceProperties:R": {"components": 6}, "p": {}}, "pisoFoam")
    last = dict(pictures(tmp_path / "run"))[19]
    np.testing.assert_allclose(
        last["gradU"].reshape(CELLS, 9), internal_field(case / "0.1" / "gradU", 9), rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(
        last["turbulenceProperties:R"].reshape(CELLS, 6),
        internal_field(case / "0.1" / "turbulenceProperties:R", 6),
        rtol=1e-4,
        atol=1e-6,
    )


def test_a_parallel_solver_streams_whole_fields_in_the_order_of_the_undecomposed_mesh(
    tutorial: Callable[..., Path], studied: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    case = cavity_of(tutorial)
    tight = re.sub(r"(relTol|tolerance) .*;", r"\1 1e-10;", (case / "system" / "fvSolution").read_text())
    (case / "system" / "fvSolution").write_text(tight)
    serial = shutil.copytree(case, tmp_path / "serial")
    foam(serial, "icoFoam", "-noFunctionObjects")
    report = studied(case, CAVITY, *decomposed(case))
    assert report["samples"]["unique"] == STEPS
    addressing = [
        np.array(re.search(r"\((.*)\)", path.read_text(), re.S)[1].split(), int)
        for path in sorted(case.glob("processor*/constant/polyMesh/cellProcAddressing"))
    ]
    assert sorted(np.concatenate(addressing)) == list(range(CELLS))
    assert (np.diff(addressing[0]) > 1).any()  # scattered: processor by processor is not this order
    for step, fields in pictures(tmp_path / "run"):
        name = f"{0.005 * (step + 1):.6g}"
        for rank, cells in enumerate(addressing):
            part = internal_field(case / f"processor{rank}" / name / "U", 3)
            np.testing.assert_allclose(fields["U"][cells], part, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(fields["U"], internal_field(serial / name / "U", 3), atol=1e-6)
    i = np.arange(CELLS)
    with h5py.File(tmp_path / "run" / "mesh.h5") as mesh:
        np.testing.assert_allclose(mesh["cell_centres"][:, :2], 0.005 * np.stack([i % 20 + 0.5, i // 20 + 0.5], axis=1))


def without_addressing(case: Path) -> list[str]:
    """Cut a case into two parts and forget which cells they hold; returns the command that solves it."""
    command = decomposed(case)
    for path in case.glob("processor*/constant/polyMesh/cellProcAddressing"):
        path.unlink()
    return command


def test_a_parallel_mesh_without_addressing_is_refused(tutorial: Callable[..., Path], tmp_path: Path) -> None:
    case = cavity_of(tutorial)
    command = without_addressing(case)
    with live_server(tmp_path / "run", CAVITY) as server, worker(server) as client:
        code, output = solve(server, next(client.simulations()), case, *command)
    assert code != 0
    assert "penstock: no cellProcAddressing in constant/polyMesh" in output


def test_the_order_of_the_processors_can_be_accepted(tutorial: Callable[..., Path], tmp_path: Path) -> None:
    case = cavity_of(tutorial, "(U p)", "cellOrder processors;")
    command = without_addressing(case)
    with live_server(tmp_path / "run", CAVITY) as server, worker(server) as client:
        simulation = next(client.simulations())
        code, output = solve(server, simulation, case, *command)
        assert code == 0, output[-3000:]
        assert "cells are sent processor by processor" in output
        simulation.exited()
        assert server.report()["samples"]["unique"] == STEPS
    with h5py.File(tmp_path / "run" / "mesh.h5") as mesh:
        centres = np.array(mesh["cell_centres"])
    assert (centres[: CELLS // 2, 0] < 0.05).all()
    assert (centres[CELLS // 2 :, 0] > 0.05).all()
