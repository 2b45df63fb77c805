"""`penstock run` as a user has it, in a process of its own: exit codes, signals, what is left behind, resuming."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tomli_w
from command import PENSTOCK, started

from penstock.run import default_directory, prepare
from penstock.run.numbers import duration
from penstock.study import StudyError, load_study
from waiting import PATIENCE, busy, wait_for

HERE = Path(__file__).parents[1]


def write_study(folder: Path, **solver: Any) -> Path:
    study = folder / "study.toml"
    study.write_text(
        tomli_w.dumps(
            {
                "study": {"name": "mine", "engine": "inline"},
                "parameters": {"a": [1.0, 2.0]},
                "solver": {"simulations": 4, "validation_simulations": 1, **solver},
                "fields": {"u": {}},
                "buffer": {"capacity": 50},
                "model": {"hidden": [4]},
                "training": {"batch_size": 2, "device": "cpu", "checkpoint_every": "1 s"},
            }
        )
    )
    (folder / "slow_solver.py").write_text((HERE / "slow_solver.py").read_text())
    return study


Penstock = Callable[..., Any]


def assigned(directory: Path) -> bool:
    return (directory / "events.jsonl").is_file() and '"assigned"' in (directory / "events.jsonl").read_text()


def test_run_report_status_and_a_second_run_into_the_same_folder(tmp_path: Path, penstock: Penstock) -> None:
    study, out = write_study(tmp_path, adapter="slow_solver:Slow", options={"pause": 0.001}), tmp_path / "out"
    done = penstock("run", study, "--out", out, "--set", "training.batch_size=3")
    assert done.code == 0, done
    assert f"run directory {out}" in done.out
    assert "cores: " in done.out
    report = json.loads((out / "report.json").read_text())
    assert (report["status"], report["samples"]["unique"], report["samples"]["expected"]) == ("finished", 16, 16)
    assert "batch_size = 3" in (out / "study.toml").read_text()
    assert json.loads(penstock("report", out, "--json").out) == report
    assert "16 of 16 expected" in penstock("report", out).out
    assert penstock("status", out).out.splitlines()[:2] == [
        f"mine: finished after {duration(report['wall_seconds'])}",
        "simulations: 5 of 5 finished, 0 running, 0 failed",
    ]
    again = penstock("run", study, "--out", out)
    assert again.code == 2
    assert again.err.startswith(f"--out {out}: holds another study (mine) already; expected a new or empty folder")
    resumed = penstock("resume", out)
    assert (resumed.code, resumed.out) == (0, f"{out}: the study has finished; nothing is left to do\n")
    assert str(out / "plots" / "training.png") in penstock("plot", out).out
    assert penstock("export", out).out == f"written to {out / 'model'}\n"
    predicted = penstock("predict", out, "--set", "a=9", "--step", "2", "--out", tmp_path / "u.npz")
    assert predicted.out.startswith("u at 2: shape (4, 1), min ")
    assert predicted.err == "warning: a = 9 lies outside the trained range [1, 2]\n"
    with np.load(tmp_path / "u.npz") as file:
        assert (file["times"].tolist(), file["u"].shape) == ([2.0], (1, 4, 1))


def test_a_frozen_worker_costs_an_attempt_and_leaves_nothing_behind(tmp_path: Path) -> None:
    study = write_study(tmp_path, adapter="slow_solver:Slow", simulations=2, options={"steps": 15, "pause": 0.1})
    out = tmp_path / "out"
    settings = ("--set", "server.heartbeat=0.2", "--set", "server.client_timeout=2", "--set", "study.engine=ray")
    running = started("run", study, "--out", out, *settings)
    wait_for(lambda: assigned(out))
    (frozen,) = workers_of(running.pid)
    time.sleep(0.5)
    os.kill(frozen, signal.SIGSTOP)
    stdout, _ = running.communicate(timeout=PATIENCE)
    assert running.returncode == 0, stdout
    assert f"a worker (pid {frozen}) has been silent or stuck for too long and is replaced" in stdout
    report = json.loads((out / "report.json").read_text())
    assert report["simulations"] == {"requested": 3, "finished": 3, "failed": 0, "restarted": 1, "redrawn": 0}
    samples = report["samples"]
    assert samples["unique"] == samples["expected"] == samples["trained_unique"] == 30
    assert not psutil.pid_exists(frozen)


def workers_of(pid: int) -> list[int]:
    """Worker processes that a running study has started on this machine."""
    return [p.pid for p in psutil.Process(pid).children() if "penstock_solvers.worker" in p.cmdline()]


def test_a_worker_from_elsewhere_goes_on_with_the_server_that_comes_after_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = write_study(tmp_path, command=[sys.executable, "slow_solver.py"])
    monkeypatch.setenv("SOLVER_PIDS", str(tmp_path / "pids"))
    monkeypatch.setenv("SOLVER_STEPS", "20")
    out = tmp_path / "out"
    running = started("run", study, "--out", out, "--set", "server.heartbeat=0.2")
    wait_for(lambda: assigned(out))
    helper = started("worker", "--connect", out / "connect.json")
    wait_for(lambda: f'"pid": {helper.pid}' in (out / "events.jsonl").read_text())
    wait_for(lambda: list((out / "checkpoints").glob("[!.]*")))
    running.kill()
    running.wait()
    subprocess.run([*PENSTOCK, "resume", out], check=True, timeout=PATIENCE)
    said, _ = helper.communicate(timeout=PATIENCE)
    assert helper.returncode == 0
    assert "the server has been restarted (as incarnation 2)" in said
    report = json.loads((out / "report.json").read_text())
    assert (report["status"], report["incarnations"], report["simulations"]["finished"]) == ("finished", 2, 5)
    assert report["samples"]["unique"] == report["samples"]["expected"] == 80
    lives = (out / "events.jsonl").read_text().split('"event": "started"')
    assert any(f'"pid": {helper.pid}' in line for line in lives[2].splitlines() if '"assigned"' in line)


def test_ctrl_c_stops_within_ten_seconds_and_resume_finishes(
    tmp_path: Path, penstock: Penstock, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = write_study(tmp_path, adapter="slow_solver:Slow", options={"steps": 400, "pause": 0.1})
    out = tmp_path / "out"
    running = started("run", study, "--out", out)
    wait_for(lambda: (out / "metrics.jsonl").is_file() and assigned(out))
    assert f"running (pid {running.pid})" in penstock("status", out).out
    held = penstock("resume", out)
    assert (held.code, f"{out}: a study is running there (pid {running.pid})" in held.err) == (2, True)
    time.sleep(1)
    begun = time.monotonic()
    running.send_signal(signal.SIGINT)
    stdout, _ = running.communicate(timeout=PATIENCE)
    assert time.monotonic() - begun < 10 * busy()
    assert running.returncode == 1
    assert f"continue it with: penstock resume {out}" in stdout
    assert json.loads((out / "report.json").read_text())["status"] == "stopped"
    assert any((out / "checkpoints").iterdir())
    monkeypatch.setenv("SOLVER_PAUSE", "0.0001")
    assert penstock("resume", out).code == 0
    report = json.loads((out / "report.json").read_text())
    assert (report["status"], report["incarnations"]) == ("finished", 2)
    assert report["samples"]["unique"] == report["samples"]["expected"] == 1600


def start_with_workers(tmp_path: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """A running study whose solvers are processes of their own; returns it and all processes below it."""
    study = write_study(tmp_path, command=[sys.executable, "slow_solver.py"])
    pids = tmp_path / "pids"
    running = started("run", study, "--out", tmp_path / "out", SOLVER_PIDS=str(pids))
    wait_for(lambda: pids.is_file() and pids.read_text().endswith("\n"))
    below = [process.pid for process in psutil.Process(running.pid).children(recursive=True)]
    assert int(pids.read_text().split()[0]) in below
    return running, below


def test_sigterm_leaves_no_process_behind(tmp_path: Path) -> None:
    running, below = start_with_workers(tmp_path)
    begun = time.monotonic()
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=PATIENCE)
    assert time.monotonic() - begun < 10 * busy()
    assert running.returncode == 1
    assert [pid for pid in below if psutil.pid_exists(pid)] == []


def test_no_worker_survives_a_killed_launcher(tmp_path: Path, penstock: Penstock) -> None:
    running, below = start_with_workers(tmp_path)
    running.kill()
    running.communicate(timeout=PATIENCE)
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in below))
    out = tmp_path / "out"
    assert "not running, and it left no report" in penstock("status", out).out
    report = penstock("report", out)
    assert (report.code, report.err.startswith(f"penstock: {out}: mine has not ended")) == (1, True)


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path, penstock: Penstock) -> None:
    study = write_study(tmp_path, adapter="slow_solver:Slow")
    before = study.read_text()
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.tex").touch()
    done = penstock("run", study, "--out", folder)
    assert done.code == 2
    assert done.err.startswith(
        f"--out {folder}: holds 1 files of something else (thesis.tex, ...); expected a new or empty"
    )
    assert study.read_text() == before
    for command in ("status", "report", "resume", "export"):
        done = penstock(command, folder)
        assert (done.code, "is no run directory: expected study.toml in it" in done.err) == (2, True)


def test_the_same_study_is_told_from_another(tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path, adapter="slow_solver:Slow"))
    out = tmp_path / "out"
    out.mkdir()
    prepare(study, out)
    with pytest.raises(StudyError, match="holds this study already"):
        prepare(study, out)


def test_default_directories_are_numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_directory("heat") == Path("runs/heat-1")
    Path("runs/heat-1").mkdir(parents=True)
    assert default_directory("heat") == Path("runs/heat-2")
