"""Whole studies whose server is killed: by part, and all of it. Real signals, real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from command import events, penstock, report, running
from paced_study import accounted, write_study

from traces import MARK, left_over, processes_with, shared_memory
from waiting import PATIENCE, busy, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def server_pid(out: Path, what: str) -> int:
    """Of the incarnation that runs now."""
    begun = events(out, "started")[-1]
    return int(begun["pid"] if what == "coordinator" else begun["ranks"][0])


def daemon_pid(process: subprocess.Popen[str], name: str) -> int:
    """Of one of Ray's daemons, which are children of `penstock run`."""
    return next(child.pid for child in psutil.Process(process.pid).children() if child.name() == name)


@pytest.fixture
def shared_memory_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """Files of shared memory before the study, whose processes are marked as those of `tmp_path / "run"`."""
    monkeypatch.setenv(MARK, str(tmp_path / "run"))
    return shared_memory()


def ended_well(out: Path, incarnations: int) -> None:
    done = accounted(out)
    assert done["incarnations"] == incarnations
    assert done["checkpoint"]["count"] > 0
    assert done["validation"]["relative_l2"] < 0.5


def test_whatever_dies_of_the_server_is_started_again(tmp_path: Path, shared_memory_before: set[Path]) -> None:
    """One study in which a trainer rank, the coordinator, and both of Ray's daemons are killed, one after the other."""
    out = tmp_path / "run"
    with running("run", write_study(tmp_path, concurrency=2), "--out", out) as process:
        for number, what in enumerate(("rank", "coordinator", "gcs_server", "raylet"), start=1):
            wait_for(lambda n=number: len(events(out, "started")) == n)
            since = len(events(out, "checkpoint"))
            wait_for(lambda n=since: len(events(out, "checkpoint")) > n)
            assert len(processes_with(MARK, str(out))) > 5
            victim = server_pid(out, what) if what in ("rank", "coordinator") else daemon_pid(process, what)
            os.kill(victim, signal.SIGKILL)
        printed, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, printed
    ended_well(out, incarnations=5)
    assert [event["kind"] for event in events(out, "restarted")] == ["rank", "coordinator", "ray", "ray"]
    outages = report(out)["outages"]
    # Where a process is killed before the ranks were seen to train again, both deaths are one outage.
    assert [kind for outage in outages for kind in outage["deaths"]] == ["rank", "coordinator", "ray", "ray"]
    assert all(outage["kind"] == outage["deaths"][0] for outage in outages)
    assert all(0 < outage["seconds"] < 120 * len(outage["deaths"]) * busy() for outage in outages)
    assert [event["seconds"] for event in events(out, "outage")] == [outage["seconds"] for outage in outages]
    assert "restart 4 of at most 5" in printed
    assert left_over(str(out), out, shared_memory_before) == []


def test_a_server_that_dies_while_it_starts_is_started_again(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with running("run", write_study(tmp_path, concurrency=2), "--out", out) as process:

        def ranks() -> list[psutil.Process]:
            children = psutil.Process(process.pid).children(recursive=True)
            return [child for child in children if child.name().startswith("ray::RankActor")]

        wait_for(ranks)[0].kill()
        printed, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, printed
    assert len(events(out, "restarted")) == 1  # it may have died before anybody knew which process it was
    assert "restart 1 of at most 5" in printed
    assert report(out)["samples"]["unique"] == report(out)["samples"]["expected"]


def drained(log: Path) -> bool:
    """Return whether the last batch has been trained: production has ended and the buffer is empty."""
    lines = [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
    training = [line for line in lines if line["kind"] == "train"]
    return bool(training) and training[-1]["production_ended"] == 1 and training[-1]["buffer_population"] == 0


def test_a_server_killed_at_any_moment_goes_on_where_it_was(tmp_path: Path, shared_memory_before: set[Path]) -> None:
    """kill -9 of `penstock run` before its first checkpoint, while one is written, and between the last batch and the report."""
    out = tmp_path / "run"
    checkpoints = out / "checkpoints"
    moments: list[Callable[[], Any]] = [
        lambda: (out / "metrics.jsonl").exists() and events(out, "finished"),
        lambda: events(out, "outage") and list(checkpoints.glob(".writing-*")),
        lambda: drained(out / "metrics.jsonl"),
    ]
    command: list[str | Path] = [
        "run",
        write_study(tmp_path, concurrency=2, training={"checkpoint_every": "1 h"}),
        "--out",
        out,
    ]
    for number, moment in enumerate(moments, start=1):
        with running(*command) as process:
            wait_for(lambda n=number: len(events(out, "started")) == n)
            wait_for(moment)
            process.kill()
        assert left_over(str(out), out, shared_memory_before) == []
        assert not (out / "report.json").exists()
        resolved = out / "study.toml"  # from now on it writes one checkpoint after the other
        resolved.write_text(re.sub(r"checkpoint_every = .*", "checkpoint_every = 0.05", resolved.read_text()))
        command = ["resume", out]
    penstock(*command)
    ended_well(out, incarnations=4)
    outages = report(out)["outages"]
    assert {outage["kind"] for outage in outages} == {"server"}
    # An outage ends with a batch, and one may have been drawn before the second kill, or the third.
    assert 1 <= len(outages) <= 3
    assert not (out / ".ray").exists()
