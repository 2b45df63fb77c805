"""A worker's key that is abused over real sockets costs its own simulations and no more."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from live_server import LiveServer, live_server
from penstock_client import Client, PenstockError, read_connect_file
from penstock_client.payloads import Finish, Hello, Outcome
from penstock_client.stream_payloads import Begin
from penstock_client.wire import ANY_SIMULATION, Dtype, Header, Kind
from penstock_server.network import hand_out, revoke_worker
from waiting import wait_for

FIELDS: dict[str, Any] = {"u": {}}
POINTS, STEPS, SIMULATIONS, TAKEN = 8, 3, 6, 2
FORGOTTEN = 60.0  # seconds after a revocation, at most, until nothing is held; about 1 on an idle machine


def serve_all(connect: Path) -> None:
    """An honest worker."""
    with Client(connect) as client:
        for simulation in client.simulations():
            for step in range(STEPS):
                simulation.send(step, u=np.full(POINTS, step, np.float32))


@contextmanager
def dealer(connect: Path, endpoint: str) -> Any:
    info = read_connect_file(connect)
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.curve_serverkey = info.server_public_key.encode()
        socket.curve_publickey = info.client_public_key.encode()
        socket.curve_secretkey = info.client_secret_key.encode()
        socket.connect(endpoint)
        yield socket


def abuse(server: LiveServer, connect: Path, mine: list[Any], victim: int) -> None:
    """Claim attempts of others, end simulations of others, hoard pieces, and fill events.jsonl."""
    incarnation = read_connect_file(connect).incarnation
    engine = server.engine
    parameters = (2.5,)
    with dealer(connect, engine._sockets.data_endpoint) as data:
        for simulation, attempt in ((victim, 2**32 - 1), (victim, 1), (SIMULATIONS - 1, 1)):
            data.send_multipart(
                [Header(Kind.BEGIN, incarnation, simulation, attempt).pack(), Begin(1, parameters).pack()]
            )
        own = mine[0]
        data.send_multipart([Header(Kind.BEGIN, incarnation, own.id, own.attempt).pack(), Begin(1, parameters).pack()])
        for step in range(1000, 1200):
            header = Header(
                Kind.PIECE, incarnation, own.id, own.attempt, step=step, count=1, dtype=Dtype.FLOAT32, time=0.0
            )
            data.send_multipart([header.pack(), np.zeros(1, "<f4").tobytes()])
        wait_for(lambda: engine._rank.training.ingest.incomplete() >= 200)
    with dealer(connect, read_connect_file(connect).control) as control:
        for number in range(20):
            hello = Hello(b"%016d" % number, 1, "\u202e" * 200)
            control.send_multipart([Header(Kind.HELLO, incarnation, ANY_SIMULATION).pack(), hello.pack()])
        finish = Finish(Outcome.FINISHED, 1, STEPS, "", 1e300)
        for number in range(1, 50):
            header = Header(Kind.FINISH, incarnation, victim, 1, offset=number)
            control.send_multipart([header.pack(), finish.pack()])
        control.poll(500)


def test_an_abused_key_costs_its_own_simulations_only(tmp_path: Path) -> None:
    with live_server(
        tmp_path / "run", FIELDS, simulations=SIMULATIONS, retries=3, server_timeout=8.0, client_timeout=60.0
    ) as server:
        thief = hand_out(server.directory, "thief")
        clients = [Client(thief) for _ in range(TAKEN)]
        mine = [client.next_simulation() for client in clients]
        mine[0].send(0, u=np.zeros(POINTS, np.float32))
        with Client(server.connect) as honest:
            victim = honest.next_simulation()
            assert victim is not None
            victim.send(0, u=np.zeros(POINTS, np.float32))
            abuse(server, thief, mine, victim.id)
            for step in range(1, STEPS):
                victim.send(step, u=np.full(POINTS, step, np.float32))
            victim.finish()
        holdings = server.engine._rank.training.ingest._streams.holdings
        assert holdings.held("thief") > 0
        revoke_worker(server.directory, "thief")
        wait_for(lambda: holdings.held("thief") == 0, FORGOTTEN)
        assert server.engine._rank.training.ingest.incomplete() == 0
        worker = threading.Thread(target=serve_all, args=(server.connect,))
        worker.start()
        report = server.report()
        worker.join(60)
        for client in clients:
            with suppress(PenstockError):
                client.close()
    assert report["status"] == "finished"
    assert report["simulations"]["failed"] == 0
    assert report["simulations"]["finished"] == SIMULATIONS
    assert report["samples"]["unique"] == report["samples"]["expected"] == SIMULATIONS * STEPS
    assert report["clients"]["blocked_seconds"] < 3600
    lines = (tmp_path / "run" / "events.jsonl").read_text().splitlines()
    assert "\u202e" not in "".join(lines)
    failed = {e["simulation"] for e in map(json.loads, lines) if e["event"] == "failed"}
    assert failed <= {simulation.id for simulation in mine}


def test_what_a_client_that_died_had_half_sent_is_dropped_at_once(tmp_path: Path) -> None:
    with live_server(
        tmp_path / "run", FIELDS, simulations=2, retries=0, server_timeout=8.0, client_timeout=3.0
    ) as server:
        connect = hand_out(server.directory, "dies")
        client = Client(connect)
        simulation = client.next_simulation()
        assert simulation is not None
        simulation.send(0, u=np.zeros(POINTS, np.float32))
        with dealer(connect, server.engine._sockets.data_endpoint) as data:
            incarnation = read_connect_file(connect).incarnation
            head = {"incarnation": incarnation, "simulation": simulation.id, "attempt": 1}
            data.send_multipart([Header(Kind.BEGIN, **head).pack(), Begin(1, (2.5,)).pack()])
            piece = Header(Kind.PIECE, step=5, count=1, dtype=Dtype.FLOAT32, **head)
            data.send_multipart([piece.pack(), np.zeros(1, "<f4").tobytes()])
            wait_for(lambda: server.engine._rank.training.ingest.incomplete() == 1)
        assert client._heartbeat is not None
        client._heartbeat.close()  # as a process that has died
        wait_for(lambda: server.engine.status().simulations.failed == 1)
        wait_for(lambda: server.engine._rank.training.ingest.incomplete() == 0)
        assert not server.engine._coordinator.production_over
        with suppress(PenstockError):
            client.close()
        serve_all(server.connect)
        server.report()
