"""The thread that sends heartbeats: its death is noticed, and it is never left with a socket that another thread closes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from penstock_client import ServerLost
from penstock_client.heartbeat import Heartbeat
from waiting import wait_for


class Connection:
    """A connection of which each sending is held up until `go`, and fails then if `error` is set."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.go, self.sending, self.closed_by = error, threading.Event(), threading.Event(), ""

    def send(self, frames: Sequence[Any]) -> None:
        self.sending.set()
        self.go.wait()
        if self.error is not None:
            raise self.error

    def receive(self, timeout: float) -> None:
        return None

    def close(self, *, deliver: bool = True) -> None:
        self.closed_by = threading.current_thread().name


def heartbeat(connection: Connection) -> Heartbeat:
    return Heartbeat(connection, bytes(16), 1, interval=0.01, server_timeout=60.0)


def test_a_thread_that_dies_is_noticed_with_its_reason() -> None:
    connection = Connection(OSError("no more descriptors"))
    beat = heartbeat(connection)
    beat.start()
    connection.go.set()
    wait_for(lambda: connection.closed_by)
    with pytest.raises(ServerLost, match=r"the thread that sends heartbeats has died \(OSError: no more descriptors\)"):
        beat.check_server()
    beat.close()


def test_a_slow_thread_closes_its_connection_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock_client.heartbeat.PATIENCE", 0.01)
    connection = Connection()
    beat = heartbeat(connection)
    beat.start()
    connection.sending.wait()
    closing = threading.Thread(target=beat.close)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive()  # the thread is in the middle of its work
    connection.go.set()
    closing.join()
    assert connection.closed_by == "penstock-heartbeat"


def test_a_thread_whose_socket_is_gone_ends_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock_client.heartbeat.LONG_PATIENCE", 0.01)
    raised: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    connection = Connection(OSError("Socket operation on non-socket"))
    beat = heartbeat(connection)
    beat.start()
    connection.sending.wait()
    beat.close()  # gives up waiting
    connection.go.set()
    beat._thread.join()
    assert raised == []
