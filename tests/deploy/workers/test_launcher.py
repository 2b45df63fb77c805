"""The launcher with real workers and a real server: what dies is restarted, what cannot work is given up, nothing is left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from penstock.study import SOLVER_ENVIRONMENT
from penstock.workers import QUICK_DEATHS, LocalLauncher, StudyLink, WorkerProcesses, worker_command
from penstock.workers.launcher import _Running
from penstock_server.engines.inline import InlineEngine
from penstock_server.network import DEFAULT
from penstock_server.study import Study
from waiting import PATIENCE, busy, wait_for

HERE = str(Path(__file__).parents[1])


class Rig:
    """An inline engine behind a launcher, with what the launcher said of workers that ended."""

    def __init__(self, directory: Path, adapter: str, client_timeout: float = 60.0, **solver: Any) -> None:
        study = Study.model_validate(
            {
                "study": {"name": "launched", "engine": "inline"},
                "parameters": {"a": [1.0, 2.0]},
                "solver": {"adapter": adapter, "simulations": 3, **solver},
                "fields": {"u": {}},
                "buffer": {"capacity": 50},
                "model": {"name": "mlp", "hidden": [4]},
                "training": {"batch_size": 2, "device": "cpu", "threads": 1},
                "server": {"heartbeat": 0.2, "client_timeout": client_timeout},
                "directory": HERE,
            }
        )
        self.engine = InlineEngine(study, directory, threads=1)
        self.exits: list[tuple[int, int, str]] = []
        self.report: dict[str, Any] | None = None
        logs = directory / "logs"
        logs.mkdir(exist_ok=True)
        self.connect = self.engine.start()
        self.processes = WorkerProcesses(
            count=1,
            command=lambda _: worker_command(self.connect),
            logs=logs,
            environment={**os.environ, **SOLVER_ENVIRONMENT},
        )
        self.study = StudyLink(
            wanted_workers=lambda: self.engine.status().wanted_workers,
            finished_simulations=lambda: self.engine.status().simulations.finished,
            fail=self.engine.fail,
        )
        self.launcher = LocalLauncher(self.processes, self.study, self.exited)

    def close(self) -> dict[str, Any]:
        if self.report is None:
            self.launcher.stop()
            self.report = self.engine.close()
        return self.report

    def exited(self, pid: int, code: int, last_words: str) -> None:
        if code:
            self.exits.append((pid, code, last_words))
        self.engine.worker_exited(pid, code, last_words)


@contextmanager
def rig(directory: Path, adapter: str, **solver: Any) -> Iterator[Rig]:
    made = Rig(directory, adapter, **solver)
    try:
        yield made
    finally:
        made.close()


def test_a_killed_worker_is_replaced_and_its_simulation_is_run_again(tmp_path: Path) -> None:
    with rig(tmp_path, "slow_solver:Slow", options={"steps": 12, "pause": 0.1}) as r:
        r.launcher.start()
        wait_for(lambda: r.engine.status().received >= 3)
        (victim,) = r.launcher.pids()
        os.kill(victim, signal.SIGKILL)
        assert r.engine.wait(PATIENCE)
        assert [(pid, code) for pid, code, _ in r.exits] == [(victim, -signal.SIGKILL)]
        report = r.close()
    assert report["status"] == "finished"
    assert report["simulations"] == {"requested": 3, "finished": 3, "failed": 0, "restarted": 1, "redrawn": 0}
    samples = report["samples"]
    assert samples["unique"] == samples["expected"] == 36
    assert samples["duplicates_dropped"] >= 3


def test_a_frozen_worker_is_killed_and_replaced_however_often(tmp_path: Path) -> None:
    """More often than workers may die quickly: what was done to it says nothing about whether a worker can live."""
    options = {"steps": 12, "pause": 0.1}
    with rig(tmp_path, "slow_solver:Slow", client_timeout=2.0, retries=10, options=options) as r:
        r.launcher.start()
        frozen: list[int] = []
        for _ in range(QUICK_DEATHS + 1):
            received = r.engine.status().received
            wait_for(lambda: r.engine.status().received > received)  # noqa: B023
            (victim,) = r.launcher.pids()
            os.kill(victim, signal.SIGSTOP)
            frozen.append(victim)
            wait_for(lambda: r.launcher.kill(r.engine.status().given_up) == [victim])  # noqa: B023
        assert r.engine.wait(PATIENCE)
        assert [(pid, code) for pid, code, _ in r.exits] == [(pid, -signal.SIGKILL) for pid in frozen]
        report = r.close()
    assert report["status"] == "finished"
    assert report["simulations"] == {"requested": 3, "finished": 3, "failed": 0, "restarted": len(frozen), "redrawn": 0}
    assert report["samples"]["unique"] == report["samples"]["expected"] == 36
    assert not any(psutil.pid_exists(pid) for pid in frozen)


def test_workers_that_are_killed_again_and_again_are_replaced_while_simulations_finish(tmp_path: Path) -> None:
    with rig(tmp_path, "slow_solver:Slow", simulations=12, retries=10, options={"steps": 4, "pause": 0.1}) as r:
        r.launcher.start()
        for _ in range(2 * QUICK_DEATHS):
            finished = r.engine.status().simulations.finished
            wait_for(lambda: r.engine.status().simulations.finished > finished)  # noqa: B023
            (victim,) = r.launcher.pids()
            os.kill(victim, signal.SIGKILL)
            wait_for(lambda: not psutil.pid_exists(victim))  # noqa: B023
        assert r.engine.wait(PATIENCE)
        assert len(r.exits) == 2 * QUICK_DEATHS
        report = r.close()
    assert report["status"] == "finished", report["message"]
    assert report["simulations"]["finished"] == 12
    assert report["samples"]["unique"] == report["samples"]["expected"] == 48


def test_only_its_own_workers_are_killed(tmp_path: Path) -> None:
    with rig(tmp_path, "slow_solver:Slow", options={"steps": 1000, "pause": 0.1}) as r:
        r.launcher.start()
        wait_for(lambda: r.engine.status().received >= 1)
        here, (pid,) = socket.gethostname(), r.launcher.pids()
        assert (
            r.launcher.kill([(here, os.getpid(), DEFAULT), (here, pid, "node17"), (f"not-{here}", pid, DEFAULT)]) == []
        )
        assert r.launcher.pids() == [pid]


def test_workers_that_die_at_once_fail_the_study_with_their_last_words(tmp_path: Path) -> None:
    with rig(tmp_path, "slow_solver:Dying") as r:
        r.launcher.start()
        assert r.engine.wait(PATIENCE)
        assert [code for _, code, _ in r.exits] == [7, 7, 7]
        assert r.launcher.pids() == []
        report = r.close()
    assert report["status"] == "failed"
    assert "this solver needs a licence" in report["message"]
    assert "worker-0.log" in report["message"]


def test_stopping_leaves_no_process_behind(tmp_path: Path) -> None:
    with rig(tmp_path, "slow_solver:Slow", options={"steps": 1000, "pause": 0.1}) as r:
        r.launcher.start()
        wait_for(lambda: r.engine.status().received >= 1)
        pids = r.launcher.pids()
        begun = time.monotonic()
        r.launcher.stop()
        assert time.monotonic() - begun < 5 * busy()
        assert pids
        assert not any(psutil.pid_exists(pid) for pid in pids)
        assert r.exits == []  # asked to go, it went without an error


def test_a_worker_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    with rig(tmp_path, "slow_solver:Slow", options={"steps": 1000, "pause": 0.1}) as r:
        r.launcher.start()
        wait_for(lambda: r.engine.status().received >= 1)
        (pid,) = r.launcher.pids()
        os.kill(pid, signal.SIGSTOP)
        r.launcher.stop()
        assert not psutil.pid_exists(pid)


def test_what_is_not_wanted_yet_is_started_once_it_is(tmp_path: Path) -> None:
    """As after the restart of a server that has lost what had been done."""
    with rig(tmp_path, "slow_solver:Slow", options={"steps": 2}) as r:
        asked = threading.Event()
        counts = [0, 0]

        def wanted() -> int:
            if counts:
                asked.set()
                return counts.pop()
            return r.engine.status().wanted_workers

        r.launcher = LocalLauncher(r.processes, replace(r.study, wanted_workers=wanted), r.exited)
        r.launcher.start()
        assert asked.wait(PATIENCE)
        assert r.launcher.pids() == []
        assert r.engine.wait(PATIENCE)
        wait_for(lambda: not r.launcher.pids())
        assert r.exits == []
        report = r.close()
        assert not any(t.name.startswith("penstock-worker") for t in threading.enumerate())
    assert report["status"] == "finished", report["message"]


class EndedMeanwhile:
    """A process that ends, and is waited for by another thread, between the look at it and the signal to it."""

    def __init__(self) -> None:
        process = subprocess.Popen([sys.executable, "-c", ""], start_new_session=True)
        process.wait()
        self.pid = process.pid

    def poll(self) -> None:
        return None


def test_a_worker_that_ends_just_as_it_is_told_to_does_no_harm(tmp_path: Path) -> None:
    launcher = launcher_of([], tmp_path, [])
    launcher._running[0] = _Running(EndedMeanwhile(), 0)  # type: ignore[arg-type]
    launcher.stop()


def launcher_of(command: list[str], logs: Path, failures: list[str]) -> LocalLauncher:
    """A launcher of one worker that runs `command` for a study that always wants one."""
    processes = WorkerProcesses(count=1, command=lambda _: command, logs=logs, environment=os.environ)
    study = StudyLink(wanted_workers=lambda: 1, finished_simulations=lambda: 0, fail=failures.append)
    return LocalLauncher(processes, study, lambda *_: None)


def test_workers_that_all_die_at_the_same_moment_are_replaced(tmp_path: Path) -> None:
    failures: list[str] = []
    launcher = launcher_of(["sleep", "60"], tmp_path, failures)
    launcher = LocalLauncher(
        replace(launcher._processes, count=2 * QUICK_DEATHS - 1),
        replace(launcher._study, wanted_workers=lambda: 99),
        print,
    )
    launcher.start()
    first = wait_for(lambda: len(pids := launcher.pids()) == 2 * QUICK_DEATHS - 1 and pids)
    for pid in first:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: failures or len(set(launcher.pids()) - set(first)) == len(first))
    launcher.stop()
    assert failures == []


def test_a_worker_that_cannot_be_started_ends_the_study(tmp_path: Path) -> None:
    """No such program, no room for its log, no further process: the study must not wait for ever."""
    failures: list[str] = []
    for command, logs in (([str(tmp_path / "missing")], tmp_path), (["true"], tmp_path / "no folder")):
        launcher = launcher_of(command, logs, failures)
        launcher.start()
        wait_for(lambda: failures)
        launcher.stop()
        (reason,) = failures
        assert "worker 0 cannot be started: [Errno 2] No such file or directory" in reason
        failures.clear()


def test_an_error_in_the_launcher_itself_ends_the_study(tmp_path: Path) -> None:
    failures: list[str] = []
    launcher = launcher_of(["false"], tmp_path, failures)
    launcher._on_exit = lambda *_: {}["nothing"]
    launcher.start()
    wait_for(lambda: failures)
    launcher.stop()
    assert failures == ["worker 0 cannot be kept running: KeyError: 'nothing'"]


def test_stopping_before_the_start_is_no_error(tmp_path: Path) -> None:
    launcher = launcher_of(["sleep", "60"], tmp_path, [])
    launcher.stop()
    launcher.start()
    launcher.stop()
    assert launcher.pids() == []


def test_a_process_that_starts_while_all_are_stopped_is_ended(tmp_path: Path) -> None:
    failures: list[str] = []
    launcher = launcher_of(["sleep", "60"], tmp_path, failures)
    make = launcher._processes.command

    def stopping(number: int) -> list[str]:
        launcher._stopping.set()  # as `stop` does, which has sent its signals before this process is there
        return make(number)

    launcher._processes = replace(launcher._processes, command=stopping)
    begun = time.monotonic()
    launcher.start()
    launcher.stop()
    assert time.monotonic() - begun < 30 * busy()
    assert (launcher.pids(), failures) == ([], [])
