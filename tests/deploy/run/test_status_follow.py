"""`penstock status` for programs, and while a study runs."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from command import started
from test_run import assigned, write_study

from waiting import PATIENCE, wait_for


def test_status_is_followed_to_the_end_of_the_study(tmp_path: Path, penstock: Callable[..., Any]) -> None:
    study = write_study(tmp_path, adapter="slow_solver:Slow", options={"steps": 20, "pause": 0.05})
    out = tmp_path / "out"
    running = started("run", study, "--out", out)
    wait_for(lambda: assigned(out))
    followed = penstock("status", out, "--follow", "--json", "--every", "0.1")
    running.communicate(timeout=PATIENCE)
    assert (running.returncode, followed.code) == (0, 0)
    states = [json.loads(line) for line in followed.out.splitlines()]
    assert (states[0]["running"], states[0]["pid"], states[0]["outcome"]) == (True, running.pid, None)
    assert (states[-1]["running"], states[-1]["pid"], states[-1]["outcome"]) == (False, None, "finished")
    finished = [state["simulations"]["finished"] for state in states]
    assert finished == sorted(finished)
    assert states[-1]["simulations"] == {"requested": 5, "finished": 5, "running": 0, "failed": 0}
    assert states[-1]["validation"]["relative_l2"] >= 0
    assert states[-1]["training"]["received"] == 80
    once = penstock("status", out, "--json")
    assert json.loads(once.out) == states[-1]


def test_following_ends_when_the_study_is_killed(tmp_path: Path) -> None:
    study = write_study(tmp_path, adapter="slow_solver:Slow", options={"steps": 400, "pause": 0.1})
    out = tmp_path / "out"
    running = started("run", study, "--out", out)
    wait_for(lambda: assigned(out))
    following = started("status", out, "--follow", "--every", "0.1")
    assert following.stdout is not None
    assert f"running (pid {running.pid})" in following.stdout.readline()
    os.kill(running.pid, signal.SIGKILL)
    running.communicate(timeout=PATIENCE)
    said, _ = following.communicate(timeout=PATIENCE)
    assert following.returncode == 0
    assert "not running, and it left no report: it was killed; `penstock resume` continues it" in said
