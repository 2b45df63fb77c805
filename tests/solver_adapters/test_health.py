"""A worker's own answer to the question of how it is, at the socket that PENSTOCK_HEALTH_SOCKET names."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_worker import SLOWER, server, worker

from penstock_solvers.health import SOCKET_VARIABLE, answer_health
from waiting import wait_for


def asked(path: Path, seconds: float = 30.0) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(seconds)
        connection.connect(str(path))
        return json.loads(connection.makefile().read())


def stopped(pid: int) -> bool:
    """Whether all threads of a process are stopped, which takes a moment from the signal on."""
    states = [
        (thread / "stat").read_text().rpartition(")")[2].split()[0] for thread in Path(f"/proc/{pid}/task").iterdir()
    ]
    return set(states) == {"T"}


@pytest.fixture
def health(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "health"
    monkeypatch.setenv(SOCKET_VARIABLE, str(path))
    return path


def test_a_worker_is_well_while_its_server_answers(health: Path, tmp_path: Path) -> None:
    # After the time-out, the worker looks for another server for as long again.
    with server(tmp_path / "run", SLOWER, server_timeout=8.0) as live, worker(live.connect) as process:
        wait_for(health.exists)
        found = wait_for(lambda: (answer := asked(health))["simulation"] is not None and answer)
        assert found["well"] is True
        assert found["server"].startswith("was heard ")
        live.vanish()
        lost = wait_for(lambda: not (answer := asked(health))["well"] and answer)
        assert lost["simulation"] == found["simulation"]
        assert process.poll() is None


def test_a_worker_that_looks_for_its_server_says_so(health: Path, tmp_path: Path) -> None:
    with server(tmp_path / "run", SLOWER) as live:
        pass
    with worker(live.connect):
        wait_for(health.exists)
        assert asked(health) == {"well": False, "server": "is looked for", "simulation": None}


def test_a_worker_that_is_stopped_does_not_answer(health: Path, tmp_path: Path) -> None:
    with server(tmp_path / "run", SLOWER) as live, worker(live.connect) as process:
        wait_for(health.exists)
        assert asked(health)
        process.send_signal(signal.SIGSTOP)
        wait_for(lambda: stopped(process.pid))
        with pytest.raises(TimeoutError):
            asked(health, 1.0)
        process.send_signal(signal.SIGCONT)
        assert asked(health)


def test_a_socket_that_was_left_over_is_replaced(health: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(health))
    answer_health(lambda: {"well": True})
    assert asked(health) == {"well": True}


@pytest.mark.parametrize("place", ["no/folder/health", "long" * 40])
def test_a_worker_works_where_no_socket_can_be_made(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(SOCKET_VARIABLE, str(tmp_path / place))
    answer_health(dict)
    assert "nobody can ask" in caplog.text


def test_one_who_hangs_up_does_no_harm(health: Path) -> None:
    def gone() -> dict[str, object]:
        raise BrokenPipeError

    answers: list[Callable[[], dict[str, object]]] = [gone, lambda: {"well": True}]
    answer_health(lambda: answers.pop(0)())
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(health))
        assert connection.recv(1) == b""
    assert asked(health) == {"well": True}
