"""The Python client over a network that fails: what is lost is asked for again, or said to be lost; no sample is, and none counts twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from live_server import LiveServer, live_server
from network import Proxy
from penstock_client import Client, ConnectionBroken, Field, Reason, Refused, ServerLost, Simulation
from penstock_client.errors import PenstockError
from penstock_client.wire import Header, Kind
from waiting import PATIENCE, busy, wait_for

STEPS, POINTS = 20, 50


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock_client.control.REPEAT", 0.4)
    monkeypatch.setattr("penstock_client.stream.FIRST_REPEAT", 0.4)
    monkeypatch.setattr("penstock_client.zmq_transport.LINGER_MS", 500)


class Rig:
    """A server, the network to it, and clients beyond that."""

    def __init__(self, live: LiveServer, control: Proxy, data: Proxy) -> None:
        self.live, self.control, self.data = live, control, data
        self.connect = live.behind(control.endpoint, data.endpoint)

    def cut(self) -> None:
        self.control.cut()
        self.data.cut()

    def events(self, name: str) -> int:
        return (self.live.directory / "events.jsonl").read_text().count(f'"event": "{name}"')


@contextmanager
def rig(directory: Path, **options: Any) -> Iterator[Rig]:
    with (
        live_server(directory, {"u": {}}, **options) as live,
        Proxy(live.engine._sockets.control_endpoint) as control,
        Proxy(live.engine._sockets.data_endpoint) as data,
    ):
        yield Rig(live, control, data)


def field(step: int) -> np.ndarray:
    return np.full(POINTS, float(step))


def stream(simulation: Simulation, pause: float = 0.0, steps: int = STEPS) -> None:
    for step in range(steps):
        simulation.send(step, u=field(step))
        time.sleep(pause)
    simulation.finish()


def work(connect: Path, pause: float = 0.0) -> int:
    """Serve simulations as a worker does; returns how many broke."""
    broken = 0
    with Client(connect) as client:
        while (simulation := client.next_simulation()) is not None:
            try:
                stream(simulation, pause)
            except ConnectionBroken as error:
                broken += 1
                simulation.fail(str(error))
    return broken


def whole(report: dict[str, Any], simulations: int) -> None:
    assert report["status"] == "finished", report
    assert report["simulations"]["finished"] == simulations
    samples = report["samples"]
    assert samples["unique"] == samples["expected"] == samples["trained_unique"] == simulations * STEPS


@pytest.mark.parametrize(
    ("kind", "event"), [(Kind.NEXT, "assigned"), (Kind.ANNOUNCE, "schema"), (Kind.FINISH, "finished")]
)
def test_an_answer_that_is_lost_is_given_again(kind: Kind, event: str, tmp_path: Path) -> None:
    with rig(tmp_path, simulations=2) as r, Client(r.connect) as client:
        ask = client._control.ask

        def ask_in_vain(header: Header, *rest: Any) -> tuple[Header, bytes]:
            if header.kind is kind:
                r.control.freeze(answers_only=True)
            return ask(header, *rest)

        def lose() -> None:
            wait_for(lambda: r.events(event))  # the server has dealt with it; its answer is with the proxy
            r.control.cut()
            r.control.thaw()

        client._control.ask = ask_in_vain  # type: ignore[method-assign]
        loser = threading.Thread(target=lose)
        loser.start()
        simulation = client.next_simulation()
        assert simulation is not None
        stream(simulation)
        loser.join()
        assert r.events("assigned") == 1
        assert r.control.connections == 4  # control and heartbeat, each made again
        counts = r.live.engine.status().simulations
        assert (counts.finished, counts.failed, counts.restarted) == (1, 0, 0)


def test_a_request_that_is_lost_is_made_again(tmp_path: Path) -> None:
    with rig(tmp_path) as r, Client(r.connect) as client:
        r.control.freeze()
        cutter = threading.Timer(0.2, lambda: (r.control.cut(), r.control.thaw()))
        cutter.start()
        simulation = client.next_simulation()
        cutter.join()
        assert simulation is not None
        stream(simulation)
        whole(r.live.report(), 1)


def test_a_worker_that_waits_for_work_keeps_its_place_over_another_connection(tmp_path: Path) -> None:
    with rig(tmp_path, simulations=1, retries=1) as r, Client(r.live.connect) as other:
        held = other.next_simulation()
        assert held is not None
        threads = [threading.Thread(target=work, args=(r.connect,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_for(lambda: r.events("client") == 3)
        time.sleep(0.3)  # they have asked
        r.cut()
        wait_for(lambda: r.control.connections == 8)
        held.fail("somebody else's turn")
        for thread in threads:
            thread.join(PATIENCE)
        assert r.events("assigned") == 2
        whole(r.live.report(), 1)


@pytest.mark.parametrize("waiting_for", ["credit", "streamed"])
def test_a_client_that_waits_for_a_rank_learns_that_its_connection_has_broken(waiting_for: str, tmp_path: Path) -> None:
    with rig(tmp_path, retries=1, credit=POINTS * 8 if waiting_for == "credit" else "1 MiB") as r:
        with Client(r.connect) as client:
            simulation = client.next_simulation()
            assert simulation is not None
            simulation.announce(u=Field((POINTS,)))
            simulation.send(0, u=field(0))
            r.data.freeze()
            cutter = threading.Timer(0.5, lambda: (r.data.cut(), r.data.thaw()))
            cutter.start()
            begun = time.monotonic()
            with pytest.raises(ConnectionBroken, match="the simulation must be run again"):
                stream_on(simulation)
            assert time.monotonic() - begun < 20 * busy()
            cutter.join()
            simulation.fail("broken")
            simulation = client.next_simulation()
            assert simulation is not None
            assert simulation.attempt == 2
            stream(simulation)
        whole(r.live.report(), 1)


def stream_on(simulation: Simulation) -> None:
    for step in range(1, STEPS):
        simulation.send(step, u=field(step))
    simulation.finish()


def test_credit_is_counted_anew_over_a_connection_made_anew_between_simulations(tmp_path: Path) -> None:
    with rig(tmp_path, simulations=4, credit=4 * POINTS * 8) as r:
        with Client(r.connect) as client:
            for simulation in client.simulations():
                stream(simulation)
                r.data.cut()
        report = r.live.report()
    whole(report, 4)
    assert report["samples"]["rejected"] == 0


def test_pieces_that_have_not_arrived_are_missed_at_the_end(tmp_path: Path) -> None:
    with rig(tmp_path) as r, Client(r.connect) as client:
        simulation = client.next_simulation()
        assert simulation is not None
        simulation.send(0, u=field(0))
        client._streams[0].flush()
        client._streams[0]._pieces += 1  # as if one had been lost without a trace
        with pytest.raises(ConnectionBroken, match="1 of 2 pieces have reached the trainer rank"):
            simulation.finish()


def test_connections_that_are_reset_again_and_again_lose_no_sample_and_count_none_twice(tmp_path: Path) -> None:
    simulations = 12
    with rig(tmp_path, simulations=simulations, retries=50) as r:
        broken: list[int] = []
        workers = [threading.Thread(target=lambda: broken.append(work(r.connect, 0.01))) for _ in range(3)]
        for worker in workers:
            worker.start()
        for _ in range(6):
            received = r.live.engine.status().received
            wait_for(lambda: r.live.engine.status().received > received + 10 or r.live.engine.wait(0))  # noqa: B023
            r.cut()
        for worker in workers:
            worker.join(PATIENCE)
        report = r.live.report()
    whole(report, simulations)
    assert sum(broken) == report["simulations"]["restarted"] > 0
    assert report["samples"]["duplicates_dropped"] > 0
    assert report["samples"]["received"] == report["samples"]["unique"] + report["samples"]["duplicates_dropped"]


def test_a_network_that_is_gone_for_three_seconds(tmp_path: Path) -> None:
    with rig(tmp_path, simulations=4, retries=3) as r:
        workers = [threading.Thread(target=work, args=(r.connect, 0.02)) for _ in range(2)]
        for worker in workers:
            worker.start()
        wait_for(lambda: r.live.engine.status().received > 5)
        r.control.refuse()
        r.data.refuse()
        time.sleep(3)
        r.control.accept()
        r.data.accept()
        for worker in workers:
            worker.join(PATIENCE)
        assert r.events("client_lost") == 0
        whole(r.live.report(), 4)


def test_a_network_that_is_slow_or_stands_still_for_a_while_costs_nothing(tmp_path: Path) -> None:
    with rig(tmp_path, simulations=2) as r:
        r.control.delay(0.05)
        r.data.delay(0.05)
        worker = threading.Thread(target=work, args=(r.connect, 0.02))
        worker.start()
        wait_for(lambda: r.live.engine.status().received > 5)
        for proxy in (r.control, r.data):
            proxy.freeze()
        time.sleep(1.5)
        for proxy in (r.control, r.data):
            proxy.thaw()
        worker.join(PATIENCE)
        report = r.live.report()
    whole(report, 2)
    assert report["simulations"]["restarted"] == report["samples"]["duplicates_dropped"] == 0


def test_a_network_that_is_cut_for_good_costs_the_client_and_the_simulation_goes_to_another(tmp_path: Path) -> None:
    with rig(tmp_path, simulations=1, retries=1, client_timeout=1.5, server_timeout=1.5) as r:
        with Client(r.connect) as client:
            simulation = client.next_simulation()
            assert simulation is not None
            simulation.send(0, u=field(0))
            r.control.freeze()
            r.data.freeze()
            with pytest.raises(ServerLost, match="has not answered"):
                stream(simulation, 0.2, steps=100)
        wait_for(lambda: r.events("client_lost"))
        r.data.thaw()  # for the other one
        assert work(r.live.connect) == 0
        whole(r.live.report(), 1)


def test_a_client_that_comes_back_after_it_was_given_up_is_told_so(tmp_path: Path) -> None:
    with rig(tmp_path, simulations=1, retries=1, client_timeout=1.0) as r:
        with Client(r.connect) as client:
            simulation = client.next_simulation()
            assert simulation is not None
            simulation.send(0, u=field(0))
            r.control.freeze()
            wait_for(lambda: r.events("client_lost"))
            other = threading.Thread(target=work, args=(r.live.connect, 0.05))
            other.start()
            wait_for(lambda: r.events("assigned") == 2)
            r.control.thaw()
            with pytest.raises(PenstockError) as caught:
                stream(simulation, 0.3, steps=100)
            # By the coordinator, or by the rank to which the other's attempt has spoken already.
            assert isinstance(caught.value, Refused)
            assert caught.value.reason in (Reason.GIVEN_UP, Reason.STALE_ATTEMPT)
            with pytest.raises(Refused, match="connect again"):
                simulation.hand_back()
            other.join(PATIENCE)
        report = r.live.report()
    whole(report, 1)
    assert sum(report["samples"]["rejected_by_reason"].values()) > 0
