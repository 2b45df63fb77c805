"""Ray listens on every address and runs what it is asked to: a study's own Ray asks for a token."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from command import EXAMPLES, events, started

from penstock_server.engines.ray.leftovers import RECORD_FILE
from waiting import PATIENCE, wait_for

STRANGER = """
import logging, sys, ray
try:
    ray.init(address=sys.argv[1], logging_level=logging.CRITICAL)
except Exception as error:
    sys.exit(f"refused: {error}")
print("let in")
"""


def port_of(process: psutil.Process) -> int | None:
    """Where the Ray that this process started is asked for everything else."""
    for child in process.children(recursive=True):
        if child.name() == "gcs_server":
            return next((c.laddr.port for c in child.net_connections("inet") if c.status == psutil.CONN_LISTEN), None)
    return None


def ask(port: int, **variables: str) -> str:
    """What a stranger with these variables is told, who must not be let in."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | variables
    asked = subprocess.run(
        [sys.executable, "-c", STRANGER, f"127.0.0.1:{port}"],
        env=environment | {"RAY_NUM_REDIS_GET_RETRIES": "1", "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert "let in" not in asked.stdout
    return asked.stderr.lower()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_stranger_cannot_use_the_ray_of_a_study(tmp_path: Path) -> None:
    out = tmp_path / "run"
    study = started("run", EXAMPLES / "heat" / "study.toml", "--out", out, "--set", "solver.simulations=100000")
    try:
        wait_for(lambda: events(out, "started") or study.poll() is not None)
        port = wait_for(lambda: port_of(psutil.Process(study.pid)))
        assert "token" in ask(port)
        assert "token" in ask(port, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64)
        assert stat.S_IMODE(Path((out / RECORD_FILE).read_text()).stat().st_mode) == 0o700  # Ray's own files are inside
        assert wait_for(lambda: events(out, "finished"))  # a simulation: the study goes on
    finally:
        study.send_signal(signal.SIGINT)
        print(study.communicate(timeout=PATIENCE)[0])
