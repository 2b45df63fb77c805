"""Whatever ends a command ends it in one line, with the traceback of an unexpected error in a log."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from penstock.cli import failures
from penstock.run import LOGS, REPORT, prepare, read_report
from penstock.run.report import DamagedReport
from penstock.study import load_study

PENSTOCK = [sys.executable, "-m", "penstock.main"]
Penstock = Callable[..., Any]

SOLVER = """
from penstock_client import Field


class Mine:
    fields = {"u": Field(shape=(4,), dtype="float32")}

    def run(self, parameters):
        yield 0.0, {"u": [0.0] * 4}
"""

# The command line with a fault in it.
FAULTY = """
import sys

from penstock.cli import studies
from penstock.main import main


def with_a_fault(*_, **__):
    raise KeyError("a fault of\\nthis command")


studies.load_and_check = with_a_fault
sys.exit(main())
"""


def study_file(folder: Path, **solver: Any) -> Path:
    """A study of a class beside it, or with `solver` of something else."""
    (folder / "mine.py").write_text(SOLVER)
    tables = {
        "study": {"name": "mine", "engine": "inline"},
        "parameters": {"a": [1.0, 2.0]},
        "solver": {"simulations": 2, "validation_simulations": 1, **(solver or {"adapter": "mine:Mine"})},
        "fields": {"u": {"shape": [4], "components": 1}},
        "training": {"device": "cpu"},
    }
    file = folder / "study.toml"
    file.write_text(tomli_w.dumps(tables))
    return file


@pytest.fixture
def run(tmp_path: Path, heat_study: Any) -> Path:
    """A run directory with logs."""
    directory = tmp_path / "run"
    directory.mkdir()
    prepare(heat_study(), directory)
    (directory / LOGS).mkdir()
    return directory


def one_line(called: Any, code: int = 1) -> str:
    assert (called.code, called.err.count("\n"), "Traceback" in called.err) == (code, 1, False), called
    return str(called.err).rstrip("\n")


def test_an_unexpected_error_is_one_line_and_a_log_in_a_folder_for_temporary_files(
    tmp_path: Path, penstock: Penstock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_a_fault(*_: object, **__: object) -> None:
        raise KeyError("a fault of\nthis command")

    monkeypatch.setattr("penstock.cli.studies.load_and_check", with_a_fault)
    line = one_line(penstock("check", study_file(tmp_path)))
    text, _, log = line.partition("; the traceback is in ")
    assert text == r"penstock: `penstock check` failed: KeyError: 'a fault of\nthis command'"
    written = Path(log).read_text()
    assert "Traceback (most recent call last):" in written
    assert "in with_a_fault" in written
    assert str(Path(log)).endswith("/logs/penstock.log")


def test_the_log_of_a_run_directory_gets_the_traceback(
    run: Path, penstock: Penstock, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run / REPORT).write_text(json.dumps(dict.fromkeys(read_keys(), "")))
    line = one_line(penstock("report", run))
    log = run / "logs" / "penstock.log"
    assert line == f"penstock: `penstock report` failed: KeyError: 'buffer'; the traceback is in {log}"
    assert "KeyError" in log.read_text()


def read_keys() -> list[str]:
    from penstock.run.report import _KEYS

    return sorted(_KEYS)


@pytest.mark.parametrize("text", ["{", "[]", '{"status": "finished"}', "\x00"])
def test_a_damaged_report_is_named(text: str, run: Path, penstock: Penstock) -> None:
    (run / REPORT).write_text(text)
    for command in (["report"], ["report", "--json"], ["status"], ["resume"]):
        line = one_line(penstock(command[0], run, *command[1:]))
        assert line.startswith(f"penstock: {run / REPORT} ")
        assert line.endswith(f"remove it, then `penstock resume {run}` writes it again from the last checkpoint")
    with pytest.raises(DamagedReport):
        read_report(run)


def test_a_folder_that_cannot_be_written(tmp_path: Path, penstock: Penstock, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_file(tmp_path, command=["true"])
    monkeypatch.chdir("/proc")
    line = one_line(penstock("run", study), 2)
    assert line.startswith("runs/mine-1: cannot be made or written as a run directory (")
    line = one_line(penstock("run", study, "--out", study / "out"), 2)
    assert line.startswith(f"{study}/out: cannot be made or written as a run directory (Not a directory)")


def test_names_that_are_too_long(tmp_path: Path, penstock: Penstock) -> None:
    long = "x" * 300
    assert "cannot read the study file (File name too long)" in one_line(penstock("check", long), 2)
    for command in ("status", "report", "resume", "export"):
        assert "is no run directory" in one_line(penstock(command, long), 2)
    study = study_file(tmp_path, command=["true", f"import sys; {long}"])
    assert penstock("check", study).code == 0
    assert "(File name too long)" in one_line(penstock("run", study, "--out", tmp_path / long), 2)


def test_predict_looks_for_the_folder_of_its_output_first(run: Path, penstock: Penstock) -> None:
    line = one_line(penstock("predict", run, "--set", "a=1", "--out", run / "missing" / "u.npz"), 2)
    assert line.startswith(f"--out {run}/missing/u.npz: there is no folder {run}/missing; make it")


def test_ctrl_c_at_any_moment(penstock: Penstock, monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("penstock.run.directory.load_study", interrupted)
    assert penstock("report", run).code == 130
    monkeypatch.setattr("penstock.main._run", interrupted)
    assert one_line(penstock("report", run), 130) == "penstock: interrupted"


def test_output_that_nothing_reads(run: Path) -> None:
    with subprocess.Popen([*PENSTOCK, "status", run], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as command:
        assert command.stdout is not None
        command.stdout.close()
        assert command.stderr is not None
        assert command.stderr.read() == b""
    assert command.returncode == 1


def test_output_to_a_full_disk(run: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*PENSTOCK, "status", run], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "No space left on device" in done.stderr


def no_file_may_grow() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def test_a_disk_that_takes_nothing_not_even_the_log(tmp_path: Path) -> None:
    study, out = study_file(tmp_path, command=["true"]), tmp_path / "out"
    done = subprocess.run(
        [*PENSTOCK, "run", study, "--out", out],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=no_file_may_grow,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith(f"{out}: cannot be made or written as a run directory (File too large): ")
    done = subprocess.run(
        [sys.executable, "-c", FAULTY, "check", study_file(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=no_file_may_grow,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "a fault" in done.stderr
    assert "; the traceback cannot be written to a log (" in done.stderr


def test_a_compute_node_without_the_server_is_told_the_place(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "penstock_server.telemetry", None)
    try:
        raise RuntimeError("a fault")
    except RuntimeError as error:
        assert failures.explain(error, "worker") == 1
    said = capsys.readouterr().err
    assert said.startswith("penstock: `penstock worker` failed: RuntimeError: a fault; raised in ")
    assert said.count("\n") == 1


def test_a_program_with_a_long_argument_is_a_solver(tmp_path: Path) -> None:
    study = load_study(study_file(tmp_path, command=["python3", "-c", "pass  #" + "x" * 300]))
    from penstock.study.check import check_study

    assert check_study(study) == []
