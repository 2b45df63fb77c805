"""Reading a study file, overriding it, and writing it back."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from penstock.study import StudyError, load_study, make_importable, resolved, write_resolved

TEXT = """
[study]
name = "mine"
[parameters]
sampler = "file"
file = "points.csv"
viscosity = [0.005, 0.02]
[solver]
command = ["./solver", "{viscosity}"]
case = "case"
simulations = 3
wall_time = "2 min"
[fields]
U = { components = 3, shape = [4, 5] }
p = {}
[buffer]
capacity = "1 GiB"
[model]
name = "mlp"
hidden = [8, 8]
[training]
optimizer = { name = "adam", lr = 1e-3 }
scheduler = { name = "StepLR", step_size = 10 }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "study.toml"
    path.write_text(TEXT)
    return path


def test_relative_paths_start_at_the_study_file(
    file: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path.parent)
    study = load_study(Path(tmp_path.name) / file.name)
    assert study.directory == str(tmp_path)
    assert study.solver.case == str(tmp_path / "case")
    assert study.solver.command == [str(tmp_path / "solver"), "{viscosity}"]
    assert study.parameters.file == str(tmp_path / "points.csv")
    assert load_study(file, ["solver.command=['python3', 'x.py']"]).solver.command == ["python3", "x.py"]


def test_a_resolved_study_reads_back_the_same_anywhere(file: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    study = load_study(file, ["training.batch_size=7", "buffer.policy=fifo"])
    elsewhere = tmp_path_factory.mktemp("run") / "study.toml"
    write_resolved(study, elsewhere)
    again = load_study(elsewhere)
    assert again == study
    assert again.directory == str(file.parent)
    assert (again.training.batch_size, again.buffer.policy, again.solver.wall_time) == (7, "fifo", 120.0)
    assert resolved(again) == elsewhere.read_text()


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("training.batch_size=64", 64),
        ("training.target_error = 1e-2", 0.01),
        ('buffer.capacity="8 GiB"', "8 GiB"),
        ("buffer.capacity=8 GiB", "8 GiB"),
        ("model.hidden=[1, 2]", [1, 2]),
        ("model.name=my.module:Net", "my.module:Net"),
        ("training.optimizer.lr=0.1", 0.1),
        ("normalisation.inputs=false", False),
    ],
)
def test_overrides_are_toml_or_else_text(file: Path, override: str, value: object) -> None:
    at: object = load_study(file, [override])
    for key in override.partition("=")[0].strip().split("."):
        at = getattr(at, key)
    assert at == value


def test_an_override_may_add_a_parameter_and_a_table(file: Path) -> None:
    study = load_study(file, ["parameters.speed=[1, 2]", "samples.window=3"])
    assert study.parameters.bounds["speed"] == (1.0, 2.0)
    assert study.samples.window == 3


def test_an_override_may_replace_a_whole_table(file: Path) -> None:
    study = load_study(file, ["parameters={viscosity = [1, 2]}"])
    assert (study.parameters.bounds, study.parameters.file) == ({"viscosity": (1.0, 2.0)}, None)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("batch_size=4", "--set batch_size=4: expected table.key=value, for example --set training.batch_size=64"),
        ("training.batch_size", "--set training.batch_size: expected table.key=value, for example .*"),
        ("study.name.x=4", '--set study.name.x=4: study.name = "mine" is no table; set study.name itself'),
        ("training.bach_size=4", "--set: [training] bach_size = 4: unknown key; did you mean 'batch_size'?"),
    ],
)
def test_wrong_overrides(file: Path, override: str, line: str) -> None:
    with pytest.raises(StudyError) as error:
        load_study(file, [override])
    (problem,) = error.value.problems
    assert problem == line or problem.startswith(line.removesuffix(".*"))


def test_all_problems_have_a_line_each(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text('[study]\nname = 3\n[solver]\nsimulations = "many"\nadapter = "heat2d"\n[feilds]\nT = {}\n')
    with pytest.raises(StudyError) as error:
        load_study(path)
    assert error.value.problems == [
        f"{path}: [parameters]: missing table; add [parameters] with one line for each parameter, viscosity = [0.005, 0.02]",
        f"{path}: [feilds]: unknown table; did you mean 'fields'?",
        f'{path}: [study] name = 3: expected a string; for example name = "cavity"',
        f'{path}: [solver] simulations = "many": expected an integer; for example simulations = 64',
    ]


def test_modules_beside_the_study_are_found_here_and_in_children(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    study = load_study(file)
    make_importable(study)
    make_importable(study)
    assert sys.path[0] == study.directory
    assert os.environ["PYTHONPATH"].split(os.pathsep) == [study.directory, "/elsewhere"]


def test_a_folder_stands_for_its_study_file(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(TEXT)
    assert resolved(load_study(tmp_path)) == resolved(load_study(tmp_path / "study.toml"))
