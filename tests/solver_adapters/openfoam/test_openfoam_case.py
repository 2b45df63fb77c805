"""OpenFOAM cases as templates: their dictionaries, what is copied, and what is wrong with a study's entries."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from penstock_solvers.openfoam.case import (
    add_control,
    add_decomposition,
    copy_prepared,
    copy_template,
    read_control,
    template_key,
)
from penstock_solvers.openfoam.dictionary import CaseError, FoamDictionary
from penstock_solvers.openfoam.entries import Writing, entry_problems
from penstock_solvers.openfoam.environment import OpenFOAMMissing, find_application, openfoam_environment
from penstock_solvers.openfoam.mesh_steps import RESTORE, steps
from penstock_solvers.openfoam.settings import LINKED, CaseSettings

CAVITY = Path(__file__).parents[3] / "examples" / "cavity" / "case"
HEADER = "FoamFile { version 2.0; format ascii; class dictionary; object test; }\n"
LID = {"file": "0/U", "entry": "boundaryField.movingWall.value", "value": "uniform ({} 0 0)"}
NU = {"file": "constant/transportProperties", "entry": "nu"}


def settings(case: Path = CAVITY, **changes: Any) -> CaseSettings:
    entries = changes.pop("entries", {"lid": LID, "nu": NU})
    return CaseSettings.of(
        {"case": str(case), "parameters": ["lid", "nu"], "fields": ["U", "p"], "entries": entries, **changes}
    )


def dictionary(folder: Path, text: str) -> FoamDictionary:
    (folder / "test").write_text(HEADER + text)
    return FoamDictionary(folder / "test", "system/test")


def written(contents: FoamDictionary, folder: Path) -> str:
    contents.write(folder / "out")
    return " ".join((folder / "out").read_text().split())


def copied(case: Path, target: Path) -> Path:
    copy_template(case, "0", target)
    return target


def test_an_entry_is_set_and_the_rest_stays_exact(tmp_path: Path) -> None:
    contents = dictionary(
        tmp_path,
        'a { b { c 1; } } other (0.123456789012345 1e-12 3); libs ("lib/x.so"); '
        "table table ((0 (0 0 0)) (1.25 (1 2 3.3333333333))); on1 off; $include; long (1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 "
        "19 20 21 22 23 24 25);",
    )
    contents.set("a.b.c", 'uniform ("path/with slash" 0.1 0 0)')
    text = written(contents, tmp_path)
    assert 'c uniform ("path/with slash" 0.1 0 0);' in text
    assert (tmp_path / "out").read_bytes() == (tmp_path / "test").read_bytes().replace(
        b"c 1;", b'c uniform ("path/with slash" 0.1 0 0);'
    )


def test_names_with_dots_patterns_and_list_elements_can_be_named(tmp_path: Path) -> None:
    contents = dictionary(
        tmp_path,
        'phases { alpha.water { nu 1; } } patches { "(in|out)let.*" { value 2; } wall { value 3; } } points (0 1 2 3);',
    )
    contents.set("phases.alpha.water.nu", "1.5")
    contents.set('patches."(in|out)let.*".value', "2.5")
    contents.set("points.3", "3.5")
    text = written(contents, tmp_path)
    assert "alpha.water { nu 1.5; }" in text
    assert '"(in|out)let.*" { value 2.5; }' in text
    assert "wall { value 3; }" in text
    assert "(0 1 2 3.5)" in text
    assert contents.entries() == [
        "phases.alpha.water.nu",
        'patches."(in|out)let.*".value',
        "patches.wall.value",
        "points",
    ]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("boundaryField.movingwall.value", "nearest: boundaryField.movingWall.value"),
        ("movingWall.value", "nearest: boundaryField.movingWall.value"),
        (
            "boundaryField.movingWall",
            "is a dictionary, not a value; name one of its entries: boundaryField.movingWall.type, ",
        ),
        ("boundaryField.inlet1.value", 'only the pattern "inlet.*"'),
        ("points.4", "has no entry 'points.4'"),
        ("zzz", "it has: boundaryField.movingWall.type"),
    ],
)
def test_an_entry_that_cannot_be_set_is_told_with_what_is_there(tmp_path: Path, entry: str, expected: str) -> None:
    contents = dictionary(
        tmp_path, 'boundaryField { movingWall { type fixedValue; value 1; } "inlet.*" { value 2; } } points (0 1 2 3);'
    )
    with pytest.raises(CaseError) as caught:
        contents.set(entry, "1")
    assert caught.value.reason.startswith("system/test")
    assert expected in caught.value.reason
    assert "\n" not in caught.value.reason


@pytest.mark.parametrize("text", ["a { b 1;", "a (1 2;", "} b"])
def test_a_file_that_is_no_dictionary_is_told_in_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(CaseError, match=r"system/test is not a dictionary that can be read") as caught:
        dictionary(tmp_path, text)
    assert "\n" not in caught.value.reason


def test_a_missing_pyfoam_tells_how_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "PyFoam.py").write_text("raise ImportError('No module named PyFoam')")
    code = (
        "from pathlib import Path; from penstock_solvers.openfoam.times import times, PyFoamMissing\n"
        f"try: times(Path({str(CAVITY)!r}))\nexcept PyFoamMissing as error: print(error)"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    out = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert "pip install 'penstock[openfoam]'" in out


def test_pyfoam_leaves_no_files_behind(tmp_path: Path) -> None:
    code = f"from pathlib import Path; from penstock_solvers.openfoam.times import times; times(Path({str(CAVITY)!r}))"
    environment = {**os.environ, "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout + done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_a_template_leaves_results_out_and_unpacks(tmp_path: Path) -> None:
    case = copied(CAVITY, tmp_path / "case")
    for folder in ("0.1", "0.5", "processor0", "postProcessing", ".git"):
        (case / folder).mkdir()
    (case / "log.icoFoam").write_text("")
    subprocess.run(["gzip", "0/U", "constant/transportProperties"], cwd=case, check=True)
    assert read_control(settings(case)).start == "0"
    template = copied(case, tmp_path / "template")
    assert sorted(p.name for p in template.iterdir()) == ["0", "constant", "system"]
    assert sorted(p.name for p in (template / "0").iterdir()) == ["U", "p"]
    assert (template / "constant" / "transportProperties").is_file()


def test_a_case_with_0_orig_gets_its_0(tmp_path: Path) -> None:
    case = copied(CAVITY, tmp_path / "case")
    (case / "0").rename(case / "0.orig")
    control = read_control(settings(case))
    assert (control.application, control.start, control.streams) == ("icoFoam", "0", False)
    assert (copied(case, tmp_path / "template") / "0.orig" / "U").is_file()
    assert steps(settings(case), case, "0") == (("blockMesh",), RESTORE)


@pytest.mark.parametrize(
    ("remove", "expected"),
    [
        ("", "does not exist: expected the folder of an OpenFOAM template case"),
        ("system", "is not an OpenFOAM case: it has no folder system/"),
        ("constant", "it has no folder constant/"),
        ("system/controlDict", "controlDict does not exist"),
        ("0", "has no folder 0 with the initial fields"),
    ],
)
def test_an_incomplete_case_is_told(tmp_path: Path, remove: str, expected: str) -> None:
    case = copied(CAVITY, tmp_path / "case")
    (case / remove).rename(tmp_path / "gone")
    with pytest.raises(CaseError, match=expected):
        read_control(settings(case))


def test_a_controldict_without_application_needs_one_from_the_study(tmp_path: Path) -> None:
    case = copied(CAVITY, tmp_path / "case")
    control = case / "system" / "controlDict"
    control.write_text(control.read_text().replace("application     icoFoam;", ""))
    with pytest.raises(CaseError, match="names no application"):
        read_control(settings(case))
    assert read_control(settings(case, application="pisoFoam")).application == "pisoFoam"


def test_wrong_entries_are_all_told_one_line_each(tmp_path: Path) -> None:
    wrong = {
        "nu": {**NU, "file": "constant/transportproperties"},
        "lid": {**LID, "value": "uniform (1 0 0)"},
        "left": {**LID, "entry": "boundaryField.movingWall.values"},
        "out": {**LID, "file": "../U"},
        "typo": LID,
    }
    chosen = settings(entries=wrong, parameters=["lid", "nu", "left", "out", "free"])
    problems = entry_problems(chosen, copied(CAVITY, tmp_path / "case"))
    assert len(problems) == 6
    assert not any("\n" in problem for problem in problems)
    told = "\n".join(problems)
    assert "[parameters] free goes nowhere" in told
    assert (
        "nu: file = 'constant/transportproperties': constant/transportproperties does not exist; constant/ has: transport"
        in told
    )
    assert "lid: value = 'uniform (1 0 0)' cannot be used (it holds no \"{}\")" in told
    assert (
        "left: file = '0/U': 0/U has no entry 'boundaryField.movingWall.values'; nearest: boundaryField.movingWall.value"
        in told
    )
    assert "out: file = '../U': expected a path inside the case" in told
    assert "typo: there is no such parameter; expected one of lid, nu, left, out, free" in told


def test_a_simulation_gets_its_parameters_and_shares_the_mesh(tmp_path: Path) -> None:
    template = copied(CAVITY, tmp_path / "template")
    (template / "constant" / "polyMesh").mkdir()
    (template / "table.csv").write_text("1,2")
    chosen = settings()
    assert entry_problems(chosen, template) == []
    directory = tmp_path / "simulation"
    directory.mkdir()
    nu = 1 / 3
    copy_prepared(template, directory, LINKED)
    writing = Writing(directory, chosen, {"lid": 1.75, "nu": nu})
    writing.write()
    writing.finish()
    assert "value uniform (1.75 0 0);" in " ".join((directory / "0" / "U").read_text().split())
    assert f"nu              {nu!r};\n" in (directory / "constant" / "transportProperties").read_text()
    assert (directory / "constant" / "polyMesh").is_symlink()
    assert (directory / "table.csv").read_text() == "1,2"
    assert "uniform (1 0 0)" in (template / "0" / "U").read_text()


def test_the_key_of_a_template_follows_its_content(tmp_path: Path) -> None:
    case = copied(CAVITY, tmp_path / "case")
    key = template_key(settings(), "0", "foam")
    assert template_key(settings(case), "0", "foam") == key
    assert template_key(settings(case, mesh_commands=[["blockMesh"], ["checkMesh"]]), "0", "foam") != key
    (case / "log.icoFoam").write_text("ignored")
    assert template_key(settings(case), "0", "foam") == key
    with (case / "system" / "blockMeshDict").open("a") as file:
        file.write("// changed\n")
    assert template_key(settings(case), "0", "foam") != key


def test_the_function_object_is_added_once(tmp_path: Path) -> None:
    case = copied(CAVITY, tmp_path / "case")
    control = case / "system" / "controlDict"
    add_control(case, read_control(settings(case)), settings(case, every=5), Path("/lib/libstream.so"))
    text = " ".join(control.read_text().split())
    assert (
        'functions { penstock { type penstockStream; libs ("/lib/libstream.so"); fields (U p); '
        "executeInterval 5; errors strict; } }" in text
    )
    assert read_control(settings(case)).streams
    before = control.read_text().count("penstockStream")
    add_control(case, read_control(settings(case)), settings(case), None)
    assert control.read_text().count("penstockStream") == before


def test_a_decomposition_for_as_many_ranks_is_kept(tmp_path: Path) -> None:
    case = copied(CAVITY, tmp_path / "case")
    path = case / "system" / "decomposeParDict"
    path.write_text(HEADER + "numberOfSubdomains 4;\nmethod hierarchical;\n")
    add_decomposition(case, 4)
    assert "hierarchical" in path.read_text()
    add_decomposition(case, 2)
    assert "numberOfSubdomains 2;\nmethod simple;\nsimpleCoeffs { n (2 1 1);" in path.read_text()


def test_the_environment_of_a_site_is_respected(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    with pytest.raises(OpenFOAMMissing, match=r"it has no etc/controlDict; source OpenFOAM's etc/bashrc"):
        openfoam_environment({"WM_PROJECT_DIR": str(tmp_path)})
    (tmp_path / "etc" / "controlDict").write_text("")
    site = {"WM_PROJECT_DIR": str(tmp_path), "PATH": "/bin"}
    assert openfoam_environment(site) == site
    (tmp_path / "etc" / "bashrc").write_text("export WM_PROJECT_VERSION=v2112\n")
    completed = openfoam_environment({"PATH": "/bin"}, packaged=tmp_path)
    assert (completed["WM_PROJECT_DIR"], completed["WM_PROJECT_VERSION"]) == (str(tmp_path), "v2112")


def test_a_missing_openfoam_tells_how_to_install_it(tmp_path: Path) -> None:
    with pytest.raises(OpenFOAMMissing, match="apt-get install openfoam"):
        openfoam_environment({}, packaged=tmp_path)
    with pytest.raises(OpenFOAMMissing, match=r"neither is blockMesh: .* apt-get install openfoam"):
        find_application("icoFoam", {"PATH": str(tmp_path)})


def test_a_missing_application_names_the_nearest(tmp_path: Path) -> None:
    for name in ("blockMesh", "icoFoam"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(OpenFOAMMissing, match="'icoFaom' is not an installed program; did you mean 'icoFoam'"):
        find_application("icoFaom", {"PATH": str(tmp_path)})


def test_a_folder_that_only_looks_like_a_time_is_part_of_the_template(tmp_path: Path) -> None:
    case = tmp_path / "case"
    subprocess.run(["cp", "-r", CAVITY, case], check=True)
    for name in ("1.2.3", "...", "0.5", "1e-05"):
        (case / name).mkdir()
    control = read_control(settings(case))
    copy_template(case, control.start, tmp_path / "copy")
    assert control.start == "0"
    assert (tmp_path / "copy" / "1.2.3").is_dir()
    assert not (tmp_path / "copy" / "0.5").exists()
    assert not (tmp_path / "copy" / "1e-05").exists()
