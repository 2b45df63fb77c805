"""A disk that becomes full under a running study: a small tmpfs, mounted for the test, which takes root."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import events, report, started
from paced_study import STEPS, accounted, write_study

from waiting import PATIENCE, busy, wait_for

pytestmark = [pytest.mark.slow]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk for a few checkpoints: the held-out time steps make each of them 16 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Leave no byte of room; returns what takes it."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (2**20, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return ballast


def failed_checkpoints(out: Path) -> float:
    """As Prometheus sees it: events.jsonl is on the full disk."""
    total = 0.0
    for target in json.loads((out / "targets.json").read_text())[0]["targets"]:
        with urllib.request.urlopen(f"http://{target}/metrics", timeout=5) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith("penstock_checkpoints_failed_total"):
                    total += float(line.rpartition(" ")[2])
    return total


INLINE = ("--set", "study.engine=inline", "--set", "solver.simulations=10", "--set", "solver.options.pause=0.02")


def test_a_full_disk_costs_checkpoints_and_nothing_else(small_disk: Path, tmp_path: Path) -> None:
    out = small_disk / "run"
    study = write_study(tmp_path, concurrency=2, training={"checkpoint_every": "300 ms"})
    process = started("run", study, "--out", out, *INLINE)
    try:
        wait_for(lambda: events(out, "checkpoint"))
        ballast = fill(small_disk)
        wait_for(lambda: failed_checkpoints(out) >= 2)
        written = len(events(out, "checkpoint"))
        ballast.unlink()
        wait_for(lambda: len(events(out, "checkpoint")) > written)
        printed, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 0, printed
    done = report(out)
    assert done["status"] == "finished"
    assert done["samples"]["unique"] == done["samples"]["expected"] == done["samples"]["trained_unique"] == 10 * STEPS
    assert done["checkpoint"]["failed"] >= 2
    assert any("checkpoints could not be written" in warning for warning in done["warnings"])
    assert len(list((out / "checkpoints").iterdir())) == 2


def test_a_report_that_cannot_be_written_is_said_and_the_study_can_be_resumed(small_disk: Path, tmp_path: Path) -> None:
    out = small_disk / "run"
    process = started(
        "run", write_study(tmp_path, concurrency=2, training={"checkpoint_every": "300 ms"}), "--out", out, *INLINE
    )
    try:
        wait_for(lambda: events(out, "checkpoint"))
        ballast = fill(small_disk)
        printed, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 1, printed
    last = printed.strip().splitlines()[-1]
    assert last.startswith(f"penstock: {out}/report.json cannot be written (No space left on device)")
    ballast.unlink()
    process = started("resume", out)
    printed, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, printed
    assert report(out)["samples"]["trained_unique"] == 10 * STEPS


def dead_while_the_disk_is_full(out: Path, study: Path, small_disk: Path) -> tuple[subprocess.Popen[str], Path]:
    """Start a study, fill its disk, kill its coordinator, and wait until the server cannot start again.

    Returns:
        The process of the study, and the file that fills the disk.
    """
    process = started("run", study, "--out", out)
    assert process.stdout is not None
    wait_for(lambda: events(out, "checkpoint"))
    ballast = fill(small_disk)
    os.kill(events(out, "started")[-1]["pid"], signal.SIGKILL)
    said: list[str] = []
    for line in process.stdout:
        said.append(line)
        if "for room in" in line:
            break
    assert "No space left on device" in said[-1], said
    return process, ballast


def test_a_server_that_dies_while_the_disk_is_full_starts_again_when_there_is_room(
    small_disk: Path, tmp_path: Path
) -> None:
    out = small_disk / "run"
    process, ballast = dead_while_the_disk_is_full(out, write_study(tmp_path, concurrency=2), small_disk)
    ballast.unlink()
    printed, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, printed
    assert accounted(out)["incarnations"] >= 2


def test_a_study_that_waits_for_room_can_be_interrupted(small_disk: Path, tmp_path: Path) -> None:
    out = small_disk / "run"
    study = write_study(tmp_path, concurrency=2, server_timeout=PATIENCE)
    process, _ = dead_while_the_disk_is_full(out, study, small_disk)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=PATIENCE)
    assert time.monotonic() - begun < 30 * busy()
    assert process.returncode == 1, printed
    assert "report.json cannot be written (No space left on device)" in printed
