"""`check` and `run` on studies with one thing wrong each: one line that says what, exit code 2, no traceback.

The files in wrong_studies/table have a row for each study:

- base: the good study that it differs from, heat.toml (the default) or examples/cavity.
- change, remove: how it differs.
- files: name and content of files beside the study.
- expect: a regular expression for the whole line after "<study file>: ".
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

HERE = Path(__file__).parent / "wrong_studies"
CAVITY = Path(__file__).parents[3] / "examples" / "cavity"
TABLES = {file.stem: tomllib.loads(file.read_text())["wrong"] for file in sorted((HERE / "table").glob("*.toml"))}
TABLE: list[dict[str, Any]] = [row for table in TABLES.values() for row in table]

Penstock = Callable[..., Any]


def outcome(called: Any) -> tuple[int, str]:
    return called.code, called.err


def changed(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with the tables of `changes` laid over it."""
    out = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = changed(out[key], value) if both else value
    return out


def write_study(
    folder: Path,
    base: str = "heat",
    change: dict[str, Any] | None = None,
    remove: tuple[str, ...] = (),
    files: dict[str, str] | None = None,
) -> Path:
    file = HERE / "heat.toml" if base == "heat" else CAVITY / "study.toml"
    data = tomllib.loads(file.read_text())
    if base == "cavity":
        data["solver"]["case"] = str(CAVITY / "case")
    data = changed(data, change or {})
    for path in remove:
        *tables, key = path.split(".")
        table = data
        for name in tables:
            table = table[name]
        del table[key]
    study = folder / "study.toml"
    study.write_text(tomli_w.dumps(data))
    for name, text in (files or {}).items():
        (folder / name).write_text(text)
    for module in HERE.glob("*.py"):
        (folder / module.name).write_text(module.read_text())
    (folder / "points.csv").write_text("initial,left,right,bottom,top\n" + "200,200,200,200,200\n" * 2)
    return study


def marked(row: dict[str, Any]) -> Any:
    marks = [pytest.mark.openfoam] if row.get("base") == "cavity" else []
    return pytest.param(row, id=row["name"].replace(" ", "_"), marks=marks)


@pytest.mark.parametrize("row", [marked(row) for row in TABLE])
def test_one_line_says_what_is_wrong(row: dict[str, Any], tmp_path: Path, penstock: Penstock) -> None:
    remove = tuple(row.get("remove", ()))
    study = write_study(tmp_path, row.get("base", "heat"), row.get("change"), remove, row.get("files"))
    code, stderr = outcome(penstock("check", study))
    assert re.fullmatch(f"{re.escape(str(study))}: {row['expect']}\n", stderr), stderr
    assert code == 2


@pytest.mark.parametrize("row", [marked(table[0]) for table in TABLES.values()])
def test_run_says_what_check_says_and_makes_nothing(row: dict[str, Any], tmp_path: Path, penstock: Penstock) -> None:
    remove = tuple(row.get("remove", ()))
    study = write_study(tmp_path, row.get("base", "heat"), row.get("change"), remove, row.get("files"))
    assert penstock("run", study, "--out", tmp_path / "out") == penstock("check", study)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("base", ["heat", pytest.param("cavity", marks=pytest.mark.openfoam)])
def test_the_base_of_the_table_is_right(base: str, tmp_path: Path, penstock: Penstock) -> None:
    assert penstock("check", write_study(tmp_path, base)).code == 0


def test_every_problem_is_reported_at_once(tmp_path: Path, penstock: Penstock) -> None:
    change = {"training": {"loss": "mze", "device": "gpu"}, "model": {"hiden": [4]}}
    code, stderr = outcome(penstock("check", write_study(tmp_path, change=change)))
    assert code == 2
    assert [line.split(": ")[1].split(" ")[:2] for line in stderr.splitlines()] == [
        ["[model]", "mlp"],
        ["[training]", "device"],
        ["[training]", "loss"],
    ]


def test_an_override_is_named_as_the_place(tmp_path: Path, penstock: Penstock) -> None:
    study = write_study(tmp_path)
    code, stderr = outcome(penstock("check", study, "--set", "training.batch_size=-1"))
    assert (code, stderr) == (
        2,
        "--set: [training] batch_size = -1: expected a number greater than 0; for example batch_size = 32\n",
    )


@pytest.mark.parametrize(
    ("text", "expect"),
    [
        ("[study\n", r"not valid TOML: .*line 1.*; correct that line .*"),
        (b"\xff\xfe", r"byte 0 is not UTF-8, expected a TOML file; save it as UTF-8"),
    ],
)
def test_files_that_are_no_toml(text: str | bytes, expect: str, tmp_path: Path, penstock: Penstock) -> None:
    study = tmp_path / "study.toml"
    study.write_bytes(text if isinstance(text, bytes) else text.encode())
    for command in ("check", "run"):
        code, stderr = outcome(penstock(command, study))
        assert (code, bool(re.fullmatch(f"{re.escape(str(study))}: {expect}\n", stderr))) == (2, True), stderr


def test_a_file_that_is_not_there_and_a_folder(tmp_path: Path, penstock: Penstock) -> None:
    for path, expect in (
        (tmp_path / "none.toml", r".*none\.toml: cannot read the study file \(No such file or directory\); give .*"),
        (tmp_path, r".*: is a folder, expected a study file; give .*study\.toml"),
    ):
        code, stderr = outcome(penstock("check", path))
        assert (code, bool(re.fullmatch(expect + "\n", stderr))) == (2, True), stderr


def test_the_installed_command_answers_like_that(tmp_path: Path) -> None:
    study = write_study(tmp_path, change={"model": {"name": "mpl"}})
    done = subprocess.run(
        [sys.executable, "-m", "penstock.main", "run", str(study), "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "Traceback" not in done.stderr
