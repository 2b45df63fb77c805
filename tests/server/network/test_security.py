"""Uninvited clients against the real server over real sockets: nothing of theirs is taken, it is counted, and others are not disturbed."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import zmq

from live_server import LiveServer, live_server
from penstock_client import Client, ConnectError, Refused, ServerLost, read_connect_file
from penstock_client.connect_file import ConnectInfo
from penstock_client.payloads import Hello
from penstock_client.wire import ANY_SIMULATION, Header, Kind
from penstock_server.network import RouterLoop, hand_out, open_keys, revoke_worker
from penstock_server.network.keys import DEFAULT, add_worker
from penstock_server.network.router import MAX_CONTROL_MESSAGE, MAX_WAITING
from penstock_server.telemetry import Metrics
from waiting import PATIENCE, wait_for

pytestmark = pytest.mark.usefixtures("quick_linger")

FIELDS: dict[str, Any] = {"u": {}}
STEPS = 5
MIB = 2**20


@pytest.fixture
def quick_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent to a server that lets nobody in need not be waited for."""
    monkeypatch.setattr("penstock_client.zmq_transport.LINGER_MS", 100)


def metrics_of(server: LiveServer) -> list[Metrics]:
    """Of the control socket and of the data socket."""
    return [server.engine._metrics, server.engine._rank.metrics]


def serve_all(connect: Path) -> None:
    """A worker with a right to be here."""
    with Client(connect) as client:
        for simulation in client.simulations():
            for step in range(STEPS):
                simulation.send(step, u=np.full(8, step, np.float32))


@contextmanager
def dealer(info: ConnectInfo | None, endpoint: str) -> Iterator[zmq.Socket[bytes]]:
    """A socket with these keys, or without CURVE."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as connection:
        connection.linger = 0
        if info is not None:
            connection.curve_serverkey = info.server_public_key.encode()
            connection.curve_publickey = info.client_public_key.encode()
            connection.curve_secretkey = info.client_secret_key.encode()
        connection.connect(endpoint)
        yield connection


def other_pair(info: ConnectInfo) -> ConnectInfo:
    public, secret = (key.decode() for key in zmq.curve_keypair())
    return replace(info, client_public_key=public, client_secret_key=secret)


def revoked_pair(server: LiveServer) -> ConnectInfo:
    info = read_connect_file(hand_out(server.directory, "gone"))
    revoke_worker(server.directory, "gone")
    return info


STRANGERS: dict[str, tuple[Callable[[LiveServer], ConnectInfo | None], str]] = {
    "no CURVE": (lambda _server: None, "protocol"),
    "wrong server key": (
        lambda s: replace(read_connect_file(s.connect), server_public_key=zmq.curve_keypair()[0].decode()),
        "protocol",
    ),
    "unknown key": (lambda s: other_pair(read_connect_file(s.connect)), "unknown_key"),
    "revoked key": (revoked_pair, "revoked_key"),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_a_stranger_is_turned_away_and_counted_while_others_go_on(name: str, tmp_path: Path) -> None:
    make, reason = STRANGERS[name]
    with live_server(tmp_path / "run", FIELDS, simulations=3) as server:
        info = make(server)
        worker = threading.Thread(target=serve_all, args=(server.connect,))
        hello = [Header(Kind.HELLO, 1, ANY_SIMULATION).pack(), Hello(b"s" * 16, 1, "stranger").pack()]
        with (
            dealer(info, read_connect_file(server.connect).control) as control,
            dealer(info, server.engine._sockets.data_endpoint) as data,
        ):
            for connection in (control, data):
                connection.send_multipart(hello)
            worker.start()
            for metrics in metrics_of(server):
                wait_for(lambda metrics=metrics: reason in metrics.handshakes_refused())
                assert set(metrics.handshakes_refused()) == {reason}
            worker.join(60)
            assert not control.poll(200)
            assert not data.poll(0)
        report = server.report()
    assert report["status"] == "finished"
    assert report["samples"]["unique"] == report["samples"]["expected"] == 3 * STEPS
    assert report["samples"]["rejected"] == 0
    assert "stranger" not in (tmp_path / "run" / "events.jsonl").read_text()


def test_bytes_that_are_no_zeromq_end_their_connection(tmp_path: Path) -> None:
    with live_server(tmp_path / "run", FIELDS) as server:
        port = int(read_connect_file(server.connect).control.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), 10) as plain:
            plain.settimeout(20)
            plain.sendall(b"GET / HTTP/1.1\r\nHost: penstock\r\n\r\n" + b"x" * 100)
            with suppress(ConnectionResetError):
                while plain.recv(1024):
                    pass
        serve_all(server.connect)
        assert server.report()["status"] == "finished"


def test_a_key_made_while_the_study_runs_lets_its_worker_in_at_once(tmp_path: Path) -> None:
    with live_server(tmp_path / "run", FIELDS, simulations=2) as server:
        with Client(server.connect):
            serve_all(hand_out(server.directory, "node1", tmp_path / "node1.json"))
        assert server.report()["samples"]["unique"] == 2 * STEPS
        assert metrics_of(server)[0].handshakes_refused() == {}


def test_a_worker_revoked_while_it_streams_is_heard_no_more_and_its_simulation_goes_to_another(tmp_path: Path) -> None:
    with live_server(
        tmp_path / "run", FIELDS, simulations=2, retries=1, server_timeout=2.0, client_timeout=3.0
    ) as server:
        worker = hand_out(server.directory, "shut-out")
        with Client(worker) as client:
            simulation = client.next_simulation()
            assert simulation is not None
            simulation.send(0, u=np.zeros(8, np.float32))
            wait_for(lambda: server.engine.status().received == 1)
            revoke_worker(server.directory, "shut-out")
            begun = time.monotonic()
            with pytest.raises(ServerLost):
                while time.monotonic() < begun + 30:
                    simulation.send(1, u=np.full(8, 1e6, np.float32))
                    time.sleep(0.05)
        with pytest.raises(ConnectError, match="no answer"):
            Client(worker, timeout=1)
        control, data = metrics_of(server)
        assert control.total("revoked_messages") > 0
        assert data.total("revoked_messages") > 0
        assert "revoked_key" in control.handshakes_refused()
        serve_all(server.connect)
        report = server.report()
    assert report["status"] == "finished"
    assert report["simulations"]["failed"] == 0
    assert (
        report["samples"]["unique"] == report["samples"]["expected"] == report["samples"]["trained_unique"] == 2 * STEPS
    )


# What a holder of a key can make the server hold ------------------------------------------------------------------------

SENDER = """
import sys, time, zmq
from penstock_client import read_connect_file
info, endpoint, number, size = read_connect_file(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
socket = zmq.Context().socket(zmq.DEALER)
socket.setsockopt(zmq.SNDHWM, 0)
socket.curve_serverkey = info.server_public_key.encode()
socket.curve_publickey = info.client_public_key.encode()
socket.curve_secretkey = info.client_secret_key.encode()
socket.connect(endpoint)
closed = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
frame = bytes(size)
for _ in range(number):
    socket.send(frame)
print("sent", flush=True)
closed.recv_multipart()
print("closed", flush=True)
time.sleep(60)
"""


class Gate:
    """A router loop whose handler waits until it is let go, as ingest waits for room; it counts what reaches it."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.metrics, self.taken, self.open = Metrics("gate", "test"), 0, threading.Event()
        keys = open_keys(directory)
        self.errors: list[BaseException] = []
        self.loop = RouterLoop(
            "gate", "127.0.0.1", keys, self, metrics=self.metrics, on_error=self.errors.append, **options
        )
        self.connect = directory / "connect.json"
        key = keys.workers[DEFAULT]
        ConnectInfo("test", 1, self.loop.endpoint, keys.server_public, key.public, key.secret).write(self.connect)
        self.loop.start()

    def __call__(self, peer: bytes, frames: Any, now: float, worker: str, /) -> list[tuple[bytes, list[bytes]]]:
        self.open.wait(PATIENCE)
        self.taken += 1
        return []

    @contextmanager
    def flooded(self, number: int, size: int) -> Iterator[subprocess.Popen[str]]:
        """A process that sends so many frames of so many bytes and reads nothing."""
        arguments = [sys.executable, "-c", SENDER, self.connect, self.loop.endpoint, number, size]
        sender = subprocess.Popen(list(map(str, arguments)), stdout=subprocess.PIPE, text=True)
        assert sender.stdout is not None
        try:
            assert sender.stdout.readline() == "sent\n"
            yield sender
        finally:
            sender.kill()
            sender.communicate()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Callable[..., Gate]]:
    made: list[Gate] = []

    def make(**options: Any) -> Gate:
        made.append(Gate(tmp_path, **options))
        return made[-1]

    yield make
    for gate in made:
        gate.open.set()
        gate.loop.close()
        assert gate.errors == []


def resident() -> int:
    return psutil.Process().memory_info().rss


def test_a_client_that_ignores_credit_is_stopped_by_tcp_and_not_by_memory(gate: Callable[..., Gate]) -> None:
    blocked = gate(max_message=2 * MIB)
    before = resident()
    with blocked.flooded(400, MIB):
        seen = 0
        for _ in range(40):  # until no more comes in
            time.sleep(0.1)
            now = resident()
            if abs(now - seen) < MIB // 4:
                break
            seen = now
        assert resident() - before < (MAX_WAITING + 40) * MIB
        blocked.open.set()
        wait_for(lambda: blocked.taken == 400, 60)


def test_a_message_above_the_bound_ends_its_connection_and_takes_no_memory(gate: Callable[..., Gate]) -> None:
    open_gate = gate(max_message=MIB)
    open_gate.open.set()
    most = before = resident()
    with open_gate.flooded(1, 200 * MIB) as sender:
        assert sender.stdout is not None
        closed = threading.Thread(target=sender.stdout.readline)
        closed.start()
        while closed.is_alive():  # until the connection has been closed
            closed.join(0.02)
            most = max(most, resident())
    assert most - before < 40 * MIB
    assert open_gate.taken == 0
    with open_gate.flooded(3, MIB):
        wait_for(lambda: open_gate.taken == 3)


def test_a_control_message_above_the_bound_disturbs_nobody(tmp_path: Path) -> None:
    with live_server(tmp_path / "run", FIELDS) as server:
        info = read_connect_file(server.connect)
        with dealer(info, info.control) as connection:
            connection.send_multipart([Header(Kind.HELLO, 1, ANY_SIMULATION).pack(), bytes(2 * MAX_CONTROL_MESSAGE)])
            assert not connection.poll(500)
            serve_all(server.connect)
        assert server.report()["samples"]["rejected"] == 0


def test_a_field_that_does_not_fit_into_a_message_is_refused_when_it_is_announced(tmp_path: Path) -> None:
    with live_server(tmp_path / "run", FIELDS, max_message="1 KiB") as server, Client(server.connect) as client:
        simulation = client.next_simulation()
        assert simulation is not None
        with pytest.raises(
            Refused, match=r"field 'u' of 4000 bytes, .* at most 1024 in one message: raise \[server\] max_message"
        ):
            simulation.send(0, u=np.zeros(1000, np.float32))
        simulation.fail("too large")


def test_answers_to_a_client_that_has_gone_are_dropped_and_counted(gate: Callable[..., Gate]) -> None:
    loop = gate().loop
    loop.post(lambda: [(b"nobody", [b"hello"])])
    wait_for(lambda: loop._metrics.total("replies_dropped") == 1)


def test_the_sender_of_a_message_is_known_by_its_key(tmp_path: Path) -> None:
    """What the check for revoked keys rests on."""
    keys = open_keys(tmp_path)
    add_worker(tmp_path, "other", "x")
    seen: list[Any] = []
    errors: list[BaseException] = []
    loop = RouterLoop("who", "127.0.0.1", keys, lambda *_: [], metrics=Metrics("who", "test"), on_error=errors.append)
    still_allows = loop._allow.still_allows

    def look(message: Any) -> bool:
        seen.append(message.get("User-Id"))
        return still_allows(message)

    loop._allow.still_allows = look  # type: ignore[method-assign]
    loop.start()
    key = keys.workers[DEFAULT]
    info = ConnectInfo("test", 1, loop.endpoint, keys.server_public, key.public, key.secret)
    with dealer(info, loop.endpoint) as connection:
        connection.send(b"hello")
        wait_for(lambda: seen)
    loop.close()
    assert (seen, errors) == ([key.public], [])
