"""`penstock worker` as a process: what it does when its server is restarted, gone, has given it up, or never was there."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from live_server import LiveServer, live_server
from network import Proxy
from penstock_client import read_connect_file
from waiting import PATIENCE, busy, wait_for

SOLVERS = Path(__file__).parents[1] / "deploy"  # slow_solver.py
SIMULATIONS, STEPS = 3, 10
SLOW: dict[str, Any] = {"adapter": "slow_solver:Slow", "options": {"steps": STEPS, "pause": 0.05}}
SLOWER: dict[str, Any] = {**SLOW, "options": {"steps": STEPS, "pause": 0.4}}
PROGRAM: dict[str, Any] = {"command": [sys.executable, "slow_solver.py"]}


@contextmanager
def server(directory: Path, solver: dict[str, Any], **options: Any) -> Iterator[LiveServer]:
    options = {"retries": 5, **options}
    with live_server(directory, {"u": {}}, simulations=SIMULATIONS, solver=solver, files=SOLVERS, **options) as live:
        yield live


@contextmanager
def worker(connect: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "penstock_solvers.worker", "--connect", connect],
        env=os.environ | environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str], code: int) -> str:
    """What it had to say."""
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, said
    assert "Traceback" not in said
    return said


def whole(live: LiveServer) -> None:
    report = live.report()
    assert report["status"] == "finished"
    assert report["simulations"]["finished"] == SIMULATIONS
    assert report["samples"]["unique"] == report["samples"]["expected"] == SIMULATIONS * STEPS


@pytest.mark.parametrize("solver", [SLOW, PROGRAM], ids=["solver in the worker", "solver as a process"])
def test_a_worker_goes_on_with_the_server_that_comes_after(solver: dict[str, Any], tmp_path: Path) -> None:
    environment = {"SOLVER_PIDS": str(tmp_path / "pids"), "SOLVER_STEPS": str(STEPS)}
    with server(tmp_path / "run", solver) as first, worker(first.connect, **environment) as process:
        wait_for(lambda: first.engine.status().received)
        first.vanish()
        time.sleep(1)  # longer than it takes to miss heartbeats
        assert process.poll() is None
        with server(tmp_path / "run", solver) as second:
            assert read_connect_file(second.connect).incarnation == 2
            said = ended(process, 0)
            assert "the server has been restarted (as incarnation 2): connect again" in said
            whole(second)
    for pid in (tmp_path / "pids").read_text().split() if solver is PROGRAM else []:
        assert not psutil.pid_exists(int(pid))


def test_a_worker_waits_for_a_server_as_long_as_it_was_told_to(tmp_path: Path) -> None:
    with server(tmp_path / "run", SLOW, server_timeout=1.5) as live, worker(live.connect) as process:
        wait_for(lambda: live.engine.status().received)
        begun = time.monotonic()
        live.vanish()
        said = ended(process, 1)
        assert 2.5 < time.monotonic() - begun < 30 * busy()  # the server's silence, and then the waiting
    assert "the server has not answered for" in said
    assert "waiting up to 2 s for another server" in said
    assert f"(looked for another server in {live.connect} for 2 s)" in said


def test_a_connect_file_whose_server_is_gone(tmp_path: Path) -> None:
    with server(tmp_path / "run", SLOW) as live:
        live.vanish()
    with worker(live.connect, PENSTOCK_CONNECT_TIMEOUT="1.5") as process:
        said = ended(process, 1)
    assert f"no answer from {read_connect_file(live.connect).control} within 1 s: is the study running" in said
    with worker(tmp_path / "nowhere.json") as process:
        assert "cannot read" in ended(process, 1)
    with worker(live.connect, PENSTOCK_CONNECT_TIMEOUT="soon") as process:
        assert "PENSTOCK_CONNECT_TIMEOUT is 'soon': expected seconds" in ended(process, 1)


def test_a_worker_that_is_started_with_an_old_connect_file_takes_the_new_one_when_it_comes(tmp_path: Path) -> None:
    with server(tmp_path / "run", SLOW) as live:
        current = read_connect_file(live.connect)
        replace(current, incarnation=7).write(live.connect)
        with worker(live.connect) as process:
            wait_for(lambda: '"reason": "incarnation"' in (tmp_path / "run" / "events.jsonl").read_text())
            current.write(live.connect)
            ended(process, 0)
            whole(live)


def test_a_worker_that_was_given_up_comes_back_as_another_client(tmp_path: Path) -> None:
    with (
        server(tmp_path / "run", SLOW, client_timeout=1.5) as live,
        worker(live.connect) as process,
    ):
        wait_for(lambda: live.engine.status().received)
        process.send_signal(signal.SIGSTOP)
        wait_for(lambda: live.engine.status().given_up == ((socket.gethostname(), process.pid, "default"),))
        process.send_signal(signal.SIGCONT)
        said = ended(process, 0)
        assert live.engine.status().given_up == ()
        assert "connecting again" in said
        whole(live)


def test_a_worker_over_a_network_that_is_cut_while_it_simulates(tmp_path: Path) -> None:
    with (
        server(tmp_path / "run", SLOW) as live,
        Proxy(live.engine._sockets.control_endpoint) as control,
        Proxy(live.engine._sockets.data_endpoint) as data,
        worker(live.behind(control.endpoint, data.endpoint)) as process,
    ):
        wait_for(lambda: live.engine.status().received)
        for proxy in (control, data):
            proxy.refuse()
        time.sleep(1)
        for proxy in (control, data):
            proxy.accept()
        ended(process, 0)
        whole(live)


def assignments(live: LiveServer) -> list[dict[str, Any]]:
    lines = (live.directory / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == "assigned"]


@pytest.mark.parametrize("solver", [SLOWER, PROGRAM], ids=["solver in the worker", "solver as a process"])
def test_a_worker_that_is_asked_to_go_takes_no_simulation_with_it(solver: dict[str, Any], tmp_path: Path) -> None:
    """Neither the one that it runs, nor the one that it would have been given next; the server learns it at once."""
    environment = {"SOLVER_PIDS": str(tmp_path / "pids"), "SOLVER_STEPS": str(STEPS), "SOLVER_PAUSE": "0.4"}
    with server(tmp_path / "run", solver, retries=0) as live, ExitStack() as stack:
        working = [stack.enter_context(worker(live.connect, **environment)) for _ in range(SIMULATIONS)]
        wait_for(lambda: len(assignments(live)) == SIMULATIONS)
        idle = stack.enter_context(worker(live.connect, **environment))
        wait_for(lambda: f'"pid": {idle.pid}' in (live.directory / "events.jsonl").read_text())
        for process in (idle, working[0]):
            process.send_signal(signal.SIGTERM)
            ended(process, 0)
        after = stack.enter_context(worker(live.connect, **environment))
        wait_for(lambda: len(assignments(live)) > SIMULATIONS)
        (again,) = assignments(live)[SIMULATIONS:]
        # To the new worker, or to one that has finished its own simulation before the new one has started.
        assert again["attempt"] == 2
        assert again["pid"] in {process.pid for process in (*working[1:], after)}
        for process in (*working[1:], after):
            ended(process, 0)
        whole(live)
        assert live.engine.status().simulations.failed == 0
