"""Which mesh commands run once, which for each simulation, and when 0.orig becomes 0."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from penstock_solvers.openfoam.case import copy, copy_template
from penstock_solvers.openfoam.entries import Writing, entry_problems
from penstock_solvers.openfoam.environment import OpenFOAMMissing, find_application
from penstock_solvers.openfoam.mesh_steps import RESTORE, steps, steps_once
from penstock_solvers.openfoam.settings import CaseSettings

CAVITY = Path(__file__).parents[3] / "examples" / "cavity" / "case"
BLOCKMESH, POTENTIAL, COPY = ("blockMesh",), ("potentialFoam",), ("cp", "0/T.orig", "0/T")


def settings(case: Path, file: str, *commands: tuple[str, ...], entry: str = "a") -> CaseSettings:
    entries: dict[str, Any] = {"x": {"file": file, "entry": entry}}
    return CaseSettings.of(
        {"case": str(case), "parameters": ["x"], "entries": entries, "mesh_commands": [list(c) for c in commands]}
    )


@pytest.fixture
def case(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CAVITY, tmp_path / "case"))


@pytest.mark.parametrize(
    ("file", "commands", "once"),
    [
        ("0/U", [BLOCKMESH], 1),
        ("constant/transportProperties", [BLOCKMESH, ("checkMesh",)], 2),
        ("system/controlDict", [BLOCKMESH], 1),
        ("system/blockMeshDict", [("surfaceFeatureExtract",), BLOCKMESH], 0),
        ("0/U", [BLOCKMESH, POTENTIAL], 1),
        ("constant/transportProperties", [BLOCKMESH, POTENTIAL], 1),
        ("0/T.orig", [BLOCKMESH, COPY], 1),
        ("0/T", [BLOCKMESH, COPY], 1),
        ("0/U", [("./Allrun.pre",)], 0),
        ("elbow.msh", [("fluentMeshToFoam", "elbow.msh")], 0),
        ("0/U", [("fluentMeshToFoam", "elbow.msh")], 1),
        ("constant/polyMesh/boundary", [BLOCKMESH], 0),
    ],
)
def test_a_command_that_a_parameter_can_reach_runs_for_each_simulation(
    case: Path, file: str, commands: list[tuple[str, ...]], once: int
) -> None:
    assert steps_once(settings(case, file, *commands), case, "0") == once


def test_a_file_that_the_mesh_includes_is_a_file_of_the_mesh(case: Path) -> None:
    with (case / "system" / "blockMeshDict").open("a") as file:
        file.write('#include "sizes"\n')
    (case / "system" / "sizes").write_text('#include "../constant/values"\n')
    (case / "constant" / "values").write_text("a 1;\n")
    assert steps_once(settings(case, "constant/values", BLOCKMESH), case, "0") == 0


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        ([BLOCKMESH], [BLOCKMESH, RESTORE]),
        ([BLOCKMESH, ("setFields",)], [BLOCKMESH, RESTORE, ("setFields",)]),
        (
            [BLOCKMESH, ("topoSet",), ("createBaffles", "-overwrite")],
            [BLOCKMESH, ("topoSet",), ("createBaffles", "-overwrite"), RESTORE],
        ),
        ([BLOCKMESH, ("cp", "-r", "0.orig", "0")], [BLOCKMESH, ("cp", "-r", "0.orig", "0")]),
    ],
)
def test_0_orig_becomes_0_between_mesh_and_fields(
    case: Path, commands: list[tuple[str, ...]], expected: list[tuple[str, ...]]
) -> None:
    (case / "0").rename(case / "0.orig")
    assert list(steps(settings(case, "0/U", *commands), case, "0")) == expected
    assert steps_once(settings(case, "0.orig/U", *commands), case, "0") < len(expected)


def test_fields_of_no_region_are_there_before_the_mesh_is_split(case: Path) -> None:
    (case / "0").rename(case / "0.orig")
    split = ("splitMeshRegions", "-cellZones", "-overwrite")
    commands = [BLOCKMESH, ("topoSet",), split, ("changeDictionary", "-region", "heater")]
    assert list(steps(settings(case, "0/U", *commands), case, "0")) == [*commands[:2], RESTORE, *commands[2:]]
    (case / "0.orig" / "heater").mkdir()
    for field in [path for path in (case / "0.orig").iterdir() if path.is_file()]:
        field.rename(case / "0.orig" / "heater" / field.name)
    assert list(steps(settings(case, "0/U", *commands), case, "0")) == [*commands[:3], RESTORE, *commands[3:]]


def test_0_orig_is_added_to_the_fields_that_a_command_has_made(case: Path) -> None:
    (case / "0").rename(case / "0.orig")
    (case / "0" / "heater").mkdir(parents=True)
    (case / "0" / "heater" / "cellToRegion").write_text("made")
    (case / "0" / "p").write_text("made")
    copy(case / "0.orig", case / "0")
    assert (case / "0" / "p").read_text() == (case / "0.orig" / "p").read_text()
    assert (case / "0" / "heater" / "cellToRegion").read_text() == "made"


def test_a_file_that_a_command_writes_anew_gets_its_parameter_again(case: Path) -> None:
    fields = case / "0"
    (fields / "T").write_text("a 1;\nb nonuniform (1 2);\n")
    writing = Writing(case, settings(case, "0/T"), {"x": 7.25})
    writing.write()
    assert (fields / "T").read_text() == "a 7.25;\nb nonuniform (1 2);\n"
    (fields / "T").write_text("a 3;\n")  # a copy of another file
    writing.finish()
    assert (fields / "T").read_text() == "a 7.25;\n"


def test_a_field_that_a_tool_has_made_of_the_value_stays(case: Path) -> None:
    (case / "0" / "T").write_text("a uniform 1;\n")
    writing = Writing(case, settings(case, "0/T"), {"x": 7.25})
    writing.write()
    (case / "0" / "T").write_text("a nonuniform List<scalar> 2(7.25 9);\n")
    writing.finish()
    assert (case / "0" / "T").read_text() == "a nonuniform List<scalar> 2(7.25 9);\n"


def test_a_file_that_a_command_makes_is_set_afterwards(case: Path) -> None:
    writing = Writing(case, settings(case, "0/made"), {"x": 2.5})
    writing.write()
    (case / "0" / "made").write_text("a 1; // made\n")
    writing.finish()
    assert (case / "0" / "made").read_text() == "a 2.5; // made\n"


def test_the_executable_bit_of_a_script_stays_and_paths_start_at_the_case(case: Path, tmp_path: Path) -> None:
    script = case / "Allrun.pre"
    script.write_text("#!/bin/sh\n")
    with pytest.raises(OpenFOAMMissing, match=r"'\./Allrun\.pre' is not executable; run chmod \+x on it"):
        find_application("./Allrun.pre", {}, case)
    script.chmod(0o700)
    copy_template(case, "0", tmp_path / "copy")
    assert find_application("./Allrun.pre", {}, tmp_path / "copy") == tmp_path / "copy" / "Allrun.pre"


def test_one_parameter_sets_several_entries_and_elements(case: Path) -> None:
    (case / "0" / "k").write_text("k 1;\nepsilon 2;\nU uniform (1 2 3);\n")
    entries = [
        {"file": "0/k", "entry": "k", "factor": 1.5, "power": 2},
        {"file": "0/k", "entry": "epsilon", "factor": 0.5, "power": 3.0},
        {"file": "0/k", "entry": "U.1", "factor": -1},
    ]
    chosen = CaseSettings.of({"case": str(case), "parameters": ["x"], "entries": {"x": entries}})
    assert entry_problems(chosen, case) == []
    writing = Writing(case, chosen, {"x": 2.0})
    writing.write()
    writing.finish()
    assert (case / "0" / "k").read_text() == "k 6.0;\nepsilon 4.0;\nU uniform (1 -2.0 3);\n"


def test_two_parameters_cannot_set_one_entry(case: Path) -> None:
    entry = {"file": "constant/transportProperties", "entry": "nu"}
    chosen = CaseSettings.of({"case": str(case), "parameters": ["x", "y"], "entries": {"x": entry, "y": entry}})
    (problem,) = entry_problems(chosen, case)
    assert "[solver.entries] y: constant/transportProperties nu is set by x as well" in problem
