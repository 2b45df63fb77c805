"""The Python client against the real server, over real sockets."""

from __future__ import annotations

import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import zmq

from live_server import LiveServer
from penstock_client import (
    Abandoned,
    Client,
    ConnectError,
    Field,
    FieldError,
    Reason,
    Refused,
    ServerLost,
    read_connect_file,
)
from penstock_client.connect_file import ConnectInfo
from penstock_client.heartbeat import Heartbeat
from penstock_client.wire import Header, Kind, unpack
from penstock_client.zmq_transport import ZmqTransport
from penstock_server.engines.inline import InlineEngine
from penstock_server.study import Study
from waiting import busy

pytestmark = pytest.mark.usefixtures("quick_linger")


@pytest.fixture
def quick_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients of a server that is gone need not wait for what can never be delivered."""
    monkeypatch.setattr("penstock_client.zmq_transport.LINGER_MS", 100)


@contextmanager
def live_server(study: Study, directory: Path) -> Iterator[LiveServer]:
    """A study whose solvers are the clients of the test."""
    engine = InlineEngine(study, directory, threads=1)
    server = LiveServer(engine, engine.start(), directory)
    yield server
    if not server.closed:
        engine.close()


@pytest.fixture
def study(heat_study) -> Study:
    return heat_study(
        study={"engine": "ray"},
        parameters={"sampler": "uniform"},
        solver={"simulations": 4, "validation_simulations": 1, "retries": 0},
        fields={"T": {}},
        server={"heartbeat": 0.1, "server_timeout": 3.0, "client_timeout": 4.0},
    )


def steps(number: int = 5, points: int = 8):
    return enumerate(np.full((points, points), float(k), dtype=np.float32) for k in range(number))


@pytest.mark.parametrize("began", [False, True], ids=["before the thread runs", "when the thread runs"])
def test_a_signal_that_raises_while_a_client_is_made_leaves_no_heartbeat_behind(
    study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, began: bool
) -> None:
    start = Heartbeat.start

    def interrupted(beat: Heartbeat) -> None:
        if began:
            start(beat)
        raise KeyboardInterrupt

    monkeypatch.setattr(Heartbeat, "start", interrupted)
    with live_server(study, tmp_path) as live:
        with pytest.raises(KeyboardInterrupt):
            Client(live.connect)
        assert not any(t.name == "penstock-heartbeat" for t in threading.enumerate())


def test_a_loop_over_all_simulations_ends_with_the_study(study, tmp_path: Path) -> None:
    with live_server(study, tmp_path) as live:
        seen = []
        with Client(live.connect) as client:
            for simulation in client.simulations():
                seen.append((simulation.id, simulation.validation))
                assert set(simulation.parameters) == {"initial", "left", "right", "bottom", "top"}
                for step, temperature in steps():
                    simulation.send(step, T=temperature)
        assert seen == [(4, True), (0, False), (1, False), (2, False), (3, False)]
        report = live.report()
    assert report["samples"]["unique"] == report["samples"]["expected"] == report["samples"]["trained_unique"] == 20
    assert report["samples"]["rejected"] == 0
    assert report["clients"]["bytes_received"] == 5 * 5 * 8 * 8 * 4


def test_arrays_are_checked_before_they_leave(study, tmp_path: Path) -> None:
    with live_server(study, tmp_path) as live, Client(live.connect) as client:
        simulation = client.next_simulation()
        assert simulation is not None
        simulation.announce(T=Field(shape=(4, 4), dtype="float32"))
        good = np.zeros((4, 4), np.float32)
        for send, text in [
            ({"T": np.zeros((4, 4))}, r"'T' has dtype float64, announced was float32: convert it"),
            ({"T": np.zeros((4, 5), np.float32)}, r"'T' has shape \(4, 5\), announced was \(4, 4\) x 1"),
            ({"T": good, "p": good}, r"has the fields \['T', 'p'\], announced were \['T'\]"),
            ({}, r"has the fields \[\], announced were"),
        ]:
            with pytest.raises(FieldError, match=text):
                simulation.send(0, **send)
        with pytest.raises(FieldError, match="dtype complex128, expected float32"):
            simulation.announce(T=Field(shape=(4,), dtype="complex128"))
        simulation.send(0, T=good)  # nothing of the bad ones has left
        simulation.finish()


def test_a_field_that_the_study_does_not_have_is_refused_with_what_it_has(study, tmp_path: Path) -> None:
    with live_server(study, tmp_path) as live, Client(live.connect) as client:
        simulation = client.next_simulation()
        assert simulation is not None
        with pytest.raises(Refused, match="field 'p': the study has T") as caught:
            simulation.send(0, p=np.zeros(3))
        assert caught.value.reason is Reason.UNKNOWN_FIELD


def test_a_nan_fails_the_simulation_with_its_place_and_the_study_goes_on(study, tmp_path: Path) -> None:
    with live_server(study, tmp_path) as live:
        with Client(live.connect) as client:
            for simulation in client.simulations():
                try:
                    for step, temperature in steps():
                        if simulation.id == 2 and step == 3:
                            temperature[1, 2] = np.nan
                        simulation.send(step, T=temperature)
                    simulation.finish()
                except Refused as refused:
                    assert refused.reason is Reason.NOT_FINITE
                    assert "time step 3 of simulation 2 has nan at element 10" in str(refused)
                    simulation.fail(str(refused))
        report = live.report()
    assert report["status"] == "finished"
    assert report["samples"]["rejected_by_reason"] == {"not_finite": 1}
    assert report["simulations"]["failed"] == 1
    assert report["samples"]["unique"] == report["samples"]["expected"] == report["samples"]["trained_unique"]


def test_what_a_failed_simulation_left_waiting_does_not_disturb_the_next(study, tmp_path: Path) -> None:
    with live_server(study, tmp_path) as live:
        with Client(live.connect) as client:
            for simulation in client.simulations():
                for step, temperature in steps():
                    simulation.send(step, T=temperature)
                if simulation.id == 1:
                    simulation.fail("gave up")
        report = live.report()
    assert report["simulations"]["failed"] == 1
    assert report["samples"]["rejected_by_reason"] == {}
    assert report["samples"]["unique"] == report["samples"]["expected"] == 20


def test_one_shot_clients_get_the_simulation_they_were_started_for(study, tmp_path: Path, monkeypatch) -> None:
    with live_server(study, tmp_path) as live, Client(live.connect) as worker:
        held = worker.next_simulation()
        assert held is not None
        monkeypatch.setenv("PENSTOCK_CONNECT", str(live.connect))
        monkeypatch.setenv("PENSTOCK_SIMULATION", str(held.id))
        monkeypatch.setenv("PENSTOCK_ATTEMPT", str(held.attempt))
        with Client() as solver:
            simulation = solver.simulation()
            assert simulation.parameters == held.parameters
            for step, temperature in steps():
                simulation.send(step, T=temperature)
            simulation.finish()
        held.exited()
        assert live.engine.status().simulations.finished == 1
        monkeypatch.setenv("PENSTOCK_ATTEMPT", str(held.attempt + 1))
        with Client() as late, pytest.raises(Refused, match="attempt 1 is the current one") as caught:
            late.simulation()
        assert caught.value.reason is Reason.STALE_ATTEMPT
        monkeypatch.delenv("PENSTOCK_SIMULATION")
        with (
            Client() as lost,
            pytest.raises(ConnectError, match="PENSTOCK_SIMULATION and PENSTOCK_ATTEMPT are not set"),
        ):
            lost.simulation()


def test_a_client_waits_for_credit_and_says_for_how_long(heat_study, tmp_path: Path) -> None:
    study = heat_study(
        solver={"simulations": 1, "validation_simulations": 0},
        buffer={"policy": "fifo", "capacity": 10, "watermark": 0, "credit": 4096},
        training={"batch_size": 1},
    )
    with live_server(study, tmp_path) as live:
        with Client(live.connect) as client:
            for simulation in client.simulations():
                for step, temperature in steps(200, 40):  # 6400 bytes each, more than the whole window
                    simulation.send(step, T=temperature)
        report = live.report()
    assert report["samples"]["unique"] == 200
    assert report["clients"]["blocked_seconds"] > 0


def test_a_large_piece_after_a_small_one_does_not_wait_for_credit_that_nobody_would_grant(
    heat_study, tmp_path: Path
) -> None:
    study = heat_study(
        solver={"simulations": 1, "validation_simulations": 0},
        fields={"T": None, "small": {}, "large": {}},
        buffer={"policy": "fifo", "capacity": 10, "watermark": 0, "credit": 80_000},
        training={"batch_size": 1},
    )
    # 8 kB use less than an eighth of the window, and leave too little of it for 79 kB.
    fields = {"small": np.zeros(2_000, np.float32), "large": np.zeros(19_750, np.float32)}
    with live_server(study, tmp_path) as live:
        with Client(live.connect) as client:
            simulation = client.next_simulation()
            assert simulation is not None
            begun = time.monotonic()
            for step in range(20):
                simulation.send(step, **fields)
            simulation.finish()
            assert time.monotonic() - begun < 20 * busy()  # and not 4 s, the time after which a rank is asked, a step
        assert live.report()["samples"]["unique"] == 20


def test_a_study_that_stops_tells_its_clients_to_abandon(study, tmp_path: Path) -> None:
    with live_server(study, tmp_path) as live, Client(live.connect) as client:
        simulation = client.next_simulation()
        assert simulation is not None
        simulation.send(0, T=np.zeros((4, 4), np.float32))
        live.engine.stop("test")
        deadline = time.monotonic() + 10
        with pytest.raises((Abandoned, Refused)):
            while time.monotonic() < deadline:
                simulation.send(1, T=np.zeros((4, 4), np.float32))
                time.sleep(0.05)


def test_a_server_that_has_gone_is_noticed_by_a_client_that_computes(study, tmp_path: Path) -> None:
    with live_server(study, tmp_path) as live, Client(live.connect) as client:
        simulation = client.next_simulation()
        assert simulation is not None
        simulation.send(0, T=np.zeros((4, 4), np.float32))
        live.engine._sockets.close()  # gone without a word
        live.engine._rank.conclude()
        live.closed = True
        deadline = time.monotonic() + 10
        with pytest.raises(ServerLost, match="has not answered for"):
            while time.monotonic() < deadline:
                simulation.send(1, T=np.zeros((4, 4), np.float32))
                time.sleep(0.05)


def test_nobody_there_and_no_file_are_said_clearly(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("PENSTOCK_CONNECT", raising=False)
    with pytest.raises(ConnectError, match="set PENSTOCK_CONNECT to the connect.json"):
        Client()
    with pytest.raises(ConnectError, match=r"cannot read .*connect.json \(No such file"):
        Client(tmp_path / "connect.json")
    (tmp_path / "connect.json").write_text("{}")
    with pytest.raises(ConnectError, match=r"is not a connect.json of this version"):
        Client(tmp_path / "connect.json")
    keys = [key.decode() for _ in range(2) for key in zmq.curve_keypair()]
    with zmq.Context() as context, context.socket(zmq.ROUTER) as closed:
        port = closed.bind_to_random_port("tcp://127.0.0.1")
    ConnectInfo("x", 1, f"tcp://127.0.0.1:{port}", keys[0], keys[2], keys[3]).write(tmp_path / "connect.json")
    with pytest.raises(ConnectError, match="no answer from tcp://127.0.0.1"):
        Client(tmp_path / "connect.json", timeout=1)


@pytest.mark.parametrize("which", ["server key", "client key"])
def test_wrong_keys_get_no_answer(which: str, study, tmp_path: Path) -> None:
    with live_server(study, tmp_path) as live:
        info = read_connect_file(live.connect)
        public, secret = (key.decode() for key in zmq.curve_keypair())
        wrong = vars(info) | (
            {"server_public_key": public}
            if which == "server key"
            else {"client_public_key": public, "client_secret_key": secret}
        )
        ConnectInfo(**wrong).write(tmp_path / "wrong.json")
        with pytest.raises(ConnectError, match="no answer"):
            Client(tmp_path / "wrong.json", timeout=1)
        with Client(live.connect) as client:  # others are not disturbed
            assert client.next_simulation() is not None


def test_connect_json_is_for_its_owner_only_and_its_keys_do_not_show(study, tmp_path: Path) -> None:
    with live_server(study, tmp_path) as live:
        assert stat.S_IMODE(live.connect.stat().st_mode) == 0o600
        info = read_connect_file(live.connect)
        assert info.client_secret_key not in repr(info)


def test_an_earlier_incarnations_client_is_refused(study, tmp_path: Path) -> None:
    with live_server(study, tmp_path) as live:
        info = read_connect_file(live.connect)
        ConnectInfo(**(vars(info) | {"incarnation": info.incarnation - 1})).write(tmp_path / "old.json")
        with pytest.raises(Refused, match="read connect.json again") as caught:
            Client(tmp_path / "old.json")
        assert caught.value.reason is Reason.INCARNATION


def test_many_clients_at_once_all_get_their_simulations(heat_study, tmp_path: Path) -> None:
    number = 60
    study = heat_study(solver={"simulations": number, "validation_simulations": 0})
    with live_server(study, tmp_path) as live:
        errors: list[BaseException] = []

        def work() -> None:
            try:
                with Client(live.connect) as client:
                    for simulation in client.simulations():
                        for step, temperature in steps(2, 4):
                            simulation.send(step, T=temperature)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(number)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        report = live.report()
    assert report["simulations"]["finished"] == number
    assert report["samples"]["unique"] == 2 * number


def test_what_does_not_speak_penstock_is_refused_and_counted(study, tmp_path: Path) -> None:
    with live_server(study, tmp_path) as live:
        transport = ZmqTransport(read_connect_file(live.connect))
        connection = transport.connect(read_connect_file(live.connect).control)
        for frames in ([b"hello"], [b"x" * 64, b""], [Header(Kind.NEXT, 1).pack(), b""]):
            connection.send(frames)
            answer = connection.receive(5)
            assert answer is not None
            assert unpack(answer[0]).kind is Kind.REFUSE
        connection.close()
        transport.close()
        live.engine.stop("done")
        assert live.report()["samples"]["rejected"] == 3
