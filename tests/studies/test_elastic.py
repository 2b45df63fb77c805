"""Whole studies whose workers come and go: started by hand beside the study's own, or in their place, and ended in every way."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from command import PENSTOCK, ROOT, events, penstock, report, running
from paced_study import accounted, write_study

from waiting import PATIENCE, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


SERVER_TIMEOUT = 10.0  # seconds; a worker that does not hear of the study's end waits as long


class Hands:
    """Workers that are started by hand, each with a key of its own."""

    def __init__(self, out: Path, stack: ExitStack) -> None:
        self._out, self._stack = out, stack

    def let_in(self, name: str) -> Path:
        """A key for it; returns its connect file."""
        penstock("key", "add", self._out, name)
        return self._out / "workers" / f"{name}.json"

    def start(self, connect: Path) -> subprocess.Popen[bytes]:
        patience = {"PENSTOCK_CONNECT_TIMEOUT": "200"}
        process = subprocess.Popen(
            [*PENSTOCK, "worker", "--connect", str(connect)], cwd=ROOT, env=os.environ | patience
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process

    def add(self, name: str) -> subprocess.Popen[bytes]:
        return self.start(self.let_in(name))

    def busy(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until it runs a simulation that nobody has finished."""
        wait_for(lambda: holds(self._out, process.pid))


def holds(out: Path, pid: int) -> bool:
    mine = [e for e in events(out, "assigned") if e["pid"] == pid]
    return bool(mine) and all(e["simulation"] != mine[-1]["simulation"] for e in events(out, "finished"))


def local_worker(process: subprocess.Popen[str]) -> int:
    """The worker that the study has started itself."""
    return next(
        child.pid
        for child in psutil.Process(process.pid).children()
        if any("penstock_solvers.worker" in word for word in child.cmdline())
    )


def test_workers_come_and_go_beside_the_studys_own(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with ExitStack() as stack:
        hands = Hands(out, stack)
        # Slow enough that simulations are left when the last worker starts.
        written = write_study(tmp_path, 0.16, server_timeout=SERVER_TIMEOUT, retries=2)
        with running("run", written, "--out", out) as study:
            wait_for(lambda: events(out, "finished"))
            asked, killed, stays = (hands.add(name) for name in ("asked", "killed", "stays"))
            hands.busy(asked)
            asked.send_signal(signal.SIGTERM)
            assert asked.wait(PATIENCE) == 0
            hands.busy(killed)
            killed.kill()
            hands.busy(stays)
            wait_for(lambda: any(e["pid"] == killed.pid for e in events(out, "client_lost")))
            first = local_worker(study)
            os.kill(first, signal.SIGTERM)
            wait_for(lambda: first not in psutil.pids())
            second = wait_for(lambda: next((p for p in [_or_none(study)] if p not in (None, first)), None))
            os.kill(second, signal.SIGKILL)
            early = hands.let_in("early")
            study.send_signal(signal.SIGINT)
            printed, _ = study.communicate(timeout=PATIENCE)
            assert report(out)["status"] == "stopped", printed
            # 1: it did not hear of the end, and waited in vain for another server.
            assert stays.wait(PATIENCE) in (0, 1)
        # Before there is a server again: it finds the new server in the connect file, which is rewritten.
        waiting = hands.start(early)
        with running("resume", out) as study:
            wait_for(lambda: holds(out, waiting.pid))
            late = hands.add("late")
            printed, _ = study.communicate(timeout=PATIENCE)
            assert study.returncode == 0, printed
            assert (waiting.wait(PATIENCE), late.wait(PATIENCE)) == (0, 0)
    done = accounted(out)
    assert done["incarnations"] == 2
    assert {e["pid"] for e in events(out, "client_lost")} >= {killed.pid}
    assert {e["pid"] for e in events(out, "assigned")} >= {asked.pid, killed.pid, stays.pid, waiting.pid, first}


def _or_none(study: subprocess.Popen[str]) -> int | None:
    try:
        return local_worker(study)
    except StopIteration:
        return None


def test_a_study_without_workers_of_its_own_wastes_nothing_on_those_that_are_asked_to_go(tmp_path: Path) -> None:
    """`retries = 0`: a simulation that was handed back must not count as failed."""
    out = tmp_path / "run"
    with (
        ExitStack() as stack,
        running("run", write_study(tmp_path, 0.07, concurrency=0, retries=0), "--out", out) as study,
    ):
        hands = Hands(out, stack)
        wait_for((out / "connect.json").exists)
        assert [
            c for c in psutil.Process(study.pid).children() if "penstock_solvers.worker" in " ".join(c.cmdline())
        ] == []
        workers = [hands.add(f"w{number}") for number in range(2)]
        for number in range(2, 6):
            leaving = workers.pop(0)
            hands.busy(leaving)
            leaving.send_signal(signal.SIGTERM)
            assert leaving.wait(PATIENCE) == 0
            workers.append(hands.add(f"w{number}"))
        printed, _ = study.communicate(timeout=PATIENCE)
        assert study.returncode == 0, printed
        assert [worker.wait(PATIENCE) for worker in workers] == [0, 0]
    assert f"start them with `penstock worker --connect {out / 'connect.json'}`" in printed
    done = accounted(out)
    assert events(out, "failed") == events(out, "client_lost") == []
    assert done["simulations"]["restarted"] == len(events(out, "returned")) > 0
