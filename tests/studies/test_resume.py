"""From the command line: an inline study interrupted, killed and resumed ends with the weights of one that was left alone."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from command import EXAMPLES, penstock, report, started

from resumed import accounting, assert_same
from waiting import PATIENCE, wait_for

pytestmark = pytest.mark.slow

HEAT = EXAMPLES / "heat" / "study.toml"
SETTINGS = [
    f"--set={setting}"
    for setting in (
        "study.engine=inline",
        "solver.simulations=20",
        "solver.validation_simulations=3",
        "solver.options.points=24",
        "solver.options.steps=40",
        "solver.concurrency=3",
        "buffer.capacity=300",
        "buffer.watermark=100",
        "buffer.presentations_per_sample=60",
        "training.device=cpu",
        "training.threads=1",
        "training.checkpoint_every=0.1",
    )
]


def checkpoints(out: Path) -> list[str]:
    """The whole ones; removed and written meanwhile."""
    return sorted(p.name for p in (out / "checkpoints").glob("0*"))


def test_interrupted_killed_and_resumed(tmp_path: Path) -> None:
    left_alone, out = tmp_path / "left_alone", tmp_path / "run"
    penstock("run", HEAT, "--out", left_alone, *SETTINGS)
    process = started("run", HEAT, "--out", out, *SETTINGS)
    for number in (signal.SIGINT, signal.SIGKILL, signal.SIGKILL):
        before = checkpoints(out)
        wait_for(lambda seen=before: len([name for name in checkpoints(out) if name > max(seen, default="")]) > 1)
        assert process.poll() is None, "the study has ended before it could be disturbed"
        os.killpg(process.pid, number)
        printed, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == (1 if number is signal.SIGINT else -number), printed
        process = started("resume", out)
    printed, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, printed
    assert (report(left_alone)["incarnations"], report(out)["incarnations"]) == (1, 4)
    assert_same(out, left_alone)
    assert accounting(report(out)) == accounting(report(left_alone))
