"""Steady solvers, cases of one region or several, moving meshes and restarts stream as docs/openfoam.md says."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from cavity import cavity_of, foam, internal_field, openfoam, pictures, solve

from live_server import live_server, worker

pytestmark = pytest.mark.openfoam


def change(file: Path, pattern: str, text: str) -> None:
    """Replace what matches in a dictionary, at least once."""
    changed, times = re.subn(pattern, text, file.read_text(), flags=re.M)
    assert times, f"{file} has no {pattern}"
    file.write_text(changed)


def test_a_steady_solver_sends_its_converged_state(tutorial: Callable[..., Path]) -> None:
    """It converges long before `executeInterval`; without a server, the attempt to send says that it has come to it."""
    case = tutorial("incompressible/simpleFoam/pitzDaily", "(U p)", "executeInterval 1000;", "sendLast true;")
    change(case / "system" / "fvSolution", r'^( +)(p|U|"\(k.*\)") +1e-[23];', r"\1\2 0.5;")
    code, output, _ = openfoam(case, "simpleFoam")
    assert code == 1
    assert "SIMPLE solution converged" in output
    assert "penstock: no server given" in output


def test_a_region_is_named_by_the_entry(
    tutorial: Callable[..., Path], studied: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    case = tutorial(
        "heatTransfer/chtMultiRegionSimpleFoam/jouleHeatingSolid",
        "(T)",
        "region solid;",
        end_time="20",
        mesh=[["blockMesh", "-region", "solid"]],
    )
    report = studied(case, {"T": {}}, "chtMultiRegionSimpleFoam")
    assert report["samples"]["unique"] == 20
    with h5py.File(tmp_path / "run" / "mesh.h5") as mesh:
        assert mesh["cell_centres"].shape[1] == 3


def test_fields_of_several_regions_in_one_study(
    tutorial: Callable[..., Path], studied: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    regions = ["bottomWater", "topAir", "heater", "leftSolid", "rightSolid"]
    case = tutorial(
        "heatTransfer/chtMultiRegionFoam/multiRegionHeater",
        '("heater:T" "topAir:U")',
        end_time="0.01",
        mesh=[
            ["blockMesh"],
            ["topoSet"],
            ["splitMeshRegions", "-cellZones", "-overwrite"],
            *(["changeDictionary", "-region", region] for region in regions),
        ],
    )
    report = studied(case, {"heater:T": {}, "topAir:U": {"components": 3}}, "chtMultiRegionFoam")
    assert report["samples"]["unique"] >= 1
    fields = next(iter(pictures(tmp_path / "run")))[1]
    assert fields["heater:T"].size != fields["topAir:U"].size / 3


def test_a_region_that_does_not_exist(tutorial: Callable[..., Path], tmp_path: Path) -> None:
    case = cavity_of(tutorial, "(p)", "region heater;")
    with live_server(tmp_path / "run", {"p": {}}) as server, worker(server) as client:
        code, output = solve(server, next(client.simulations()), case, "icoFoam")
    assert code == 1
    assert "penstock: this solver has no mesh heater, it has (region0): set region" in output


def test_a_moving_mesh_has_its_first_position(
    tutorial: Callable[..., Path], studied: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    case = tutorial("incompressible/pimpleFoam/laminar/movingCone", "(U p)", end_time="5e-5")
    studied(case, {"U": {"components": 3}, "p": {}}, "pimpleFoam")
    first = next(iter(pictures(tmp_path / "run")))[1]
    with h5py.File(tmp_path / "run" / "mesh.h5") as mesh:
        assert mesh["cell_centres"].shape == (first["p"].size, 3)


def test_a_restart_numbers_its_time_steps_from_0(
    tutorial: Callable[..., Path], studied: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    case = cavity_of(tutorial, "(p)", "executeInterval 3;")
    foam(case, "icoFoam", "-noFunctionObjects")
    for folder in case.iterdir():
        if folder.name.startswith("0.") and float(folder.name) > 0.0251:
            shutil.rmtree(folder)
    change(case / "system" / "controlDict", r"^startTime .*$", "startTime 0.025;")
    report = studied(case, {"p": {}}, "icoFoam")  # from time step 5: 6, 9, 12, 15 and 18 are multiples of 3
    assert report["samples"]["unique"] == 5
    step, fields = next(iter(pictures(tmp_path / "run")))
    written = internal_field(case / f"{0.005 * (6 + 3 * step):.6g}" / "p", 1)
    np.testing.assert_allclose(fields["p"].reshape(-1, 1), written, rtol=1e-6, atol=1e-9)
