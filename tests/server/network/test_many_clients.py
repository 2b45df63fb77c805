"""A thousand real clients connect to the real server at once, over real sockets with CURVE, and none is lost."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import crowd
from live_server import live_server
from penstock_server.network.open_files import allow_open_files
from waiting import PATIENCE

CLIENTS, PROCESSES = 1000, 4
CONNECTIONS = 3  # of one client: control, heartbeats, data
STEPS, POINTS = 4, 16
USUAL = 1024  # open files that a process may have on most systems before it asks for more

pytestmark = pytest.mark.slow


@pytest.fixture
def usual_limit() -> Iterator[None]:
    """As a server starts on most systems: with a soft limit of open files far below what it will need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = CLIENTS * CONNECTIONS + USUAL
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.fail(
            f"the hard limit of open files is {hard} (`ulimit -Hn`), a server of {CLIENTS} clients needs {needed}: raise it in "
            "/etc/security/limits.conf, or in the container's or service's settings"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (USUAL, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_limit_of_open_files_is_raised_as_far_as_it_may_be_and_never_lowered(usual_limit: None) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert allow_open_files(USUAL + 500) == USUAL + 500
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (USUAL + 500, hard)
    assert allow_open_files(USUAL) == USUAL + 500
    assert hard == resource.RLIM_INFINITY or allow_open_files(hard + 1) == hard


def heard(process: subprocess.Popen[str], stage: str) -> dict[str, Any]:
    """What a process of the crowd says, which must be that it has come to this stage."""
    assert process.stdout is not None
    line = process.stdout.readline()
    said: dict[str, Any] = json.loads(line) if line else {"stage": f"its end, with code {process.wait()}"}
    assert said["stage"] == stage, said
    return said


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.usefixtures("usual_limit")
def test_a_thousand_clients_that_connect_at_once_are_all_served(tmp_path: Path) -> None:
    server_process = psutil.Process()
    # Heartbeats as in a study (the default is 2 s), not as in tests of one client; patience for a busy machine.
    server_section = {"heartbeat": 2.0, "client_timeout": PATIENCE, "server_timeout": PATIENCE}
    with live_server(tmp_path / "run", {"u": {}}, simulations=CLIENTS, **server_section) as server:
        command = [sys.executable, crowd.__file__, server.connect, *map(str, (CLIENTS // PROCESSES, STEPS, POINTS))]
        processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(PROCESSES)
        ]
        try:
            for process in processes:
                heard(process, "ready")
            before = server_process.num_fds()
            for process in processes:
                go_on(process)
            held = [number for process in processes for number in heard(process, "holding")["simulations"]]
            assert sorted(held) == list(range(CLIENTS))
            assert server.engine.status().simulations.running == CLIENTS
            # Heartbeats and data go over connections of their own, which may take a moment more.
            deadline = time.monotonic() + PATIENCE
            while (connections := server_process.num_fds() - before) < CLIENTS * CONNECTIONS:
                assert time.monotonic() < deadline, f"{connections} connections, expected {CLIENTS * CONNECTIONS}"
                time.sleep(0.1)
            for process in processes:
                go_on(process)
            assert [heard(process, "done")["errors"] for process in processes] == [[]] * PROCESSES
        finally:
            for process in processes:
                process.kill()
                process.communicate()
        report = server.report()
    assert report["status"] == "finished"
    counts = report["simulations"]
    assert (counts["finished"], counts["failed"], counts["restarted"]) == (CLIENTS, 0, 0)
    samples = report["samples"]
    assert samples["expected"] == samples["unique"] == samples["trained_unique"] == CLIENTS * STEPS
    assert (samples["received"], samples["duplicates_dropped"], samples["rejected"]) == (CLIENTS * STEPS, 0, 0)
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert sum(event["event"] == "client" for event in events) == CLIENTS
    assert not [event for event in events if event["event"] in ("client_lost", "refused")]
