"""Real solvers in processes of their own, whose fields reach the real server through shared memory."""

from __future__ import annotations

import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from live_server import LiveServer, live_server
from network import Proxy
from penstock_client import Client, ConnectionBroken, Field
from waiting import wait_for

POINTS, STEPS = 3000, 32  # the server keeps checksums of as many
SOLVER = """
import os, sys
import numpy as np
from penstock_client import Client
from penstock_client.simulation import Field

how = sys.argv[1]
if how == "messages":
    del os.memfd_create  # as on a system that has none
with Client() as client:
    for simulation in client.simulations():
        simulation.announce(U=Field((3000,), 3), p=Field((3000,), dtype="float32"))
        for step in range(32 if how != "forever" else 80):
            numbers = np.random.default_rng([simulation.id, step])
            simulation.send(step, U=numbers.random((3000, 3)), p=numbers.random(3000, np.float32))
            if how == "forever" and step == 60:
                print("streams", flush=True)
                sys.stdin.read()
"""
FIELDS = {"U": {"components": 3}, "p": {}}


def values(simulation: int, step: int) -> dict[str, np.ndarray]:
    """The fields of a time step, as SOLVER makes them."""
    numbers = np.random.default_rng([simulation, step])
    return {"U": numbers.random((POINTS, 3)), "p": numbers.random(POINTS, np.float32)}


def checksums(simulations: int) -> dict[int, dict[int, int]]:
    """Of each time step of each simulation, as the server keeps it."""

    def checksum(simulation: int, step: int) -> int:
        fields = [array.ravel().astype(np.float32) for array in values(simulation, step).values()]
        return zlib.crc32(np.concatenate(fields).tobytes())

    return {s: {step: checksum(s, step) for step in range(STEPS)} for s in range(simulations)}


def received(server: LiveServer) -> dict[int, dict[int, int]]:
    """The checksums of what the server has received."""
    return {s: dict(f.steps) for s, f in server.engine._rank.status().fingerprints.items()}


@contextmanager
def solver(server: LiveServer, how: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", SOLVER, how]
    with subprocess.Popen(
        command, env=server.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def mapped() -> int:
    """How many memories of clients the server, which is this process, has mapped."""
    return Path("/proc/self/maps").read_text().count("/memfd:penstock")


@pytest.mark.parametrize(
    ("how", "enabled", "connections"), [("memory", True, 1), ("messages", True, 0), ("memory", False, 0)]
)
def test_samples_are_the_same_bit_for_bit(tmp_path: Path, how: str, enabled: bool, connections: int) -> None:
    with live_server(tmp_path / "run", FIELDS, simulations=2, credit="256 KiB", shared_memory=enabled) as server:
        with solver(server, how) as process:
            report = server.report()
            assert process.wait(60) == 0
        samples, metrics = received(server), server.engine._rank.metrics
    assert report["samples"]["unique"] == report["samples"]["trained_unique"] == 2 * STEPS
    assert report["samples"]["rejected"] == report["samples"]["duplicates_dropped"] == 0
    assert metrics.total("shared_memory_connections") == connections
    assert samples == checksums(2)


def test_a_connection_that_breaks_costs_a_simulation_and_no_value_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock_client.stream.FIRST_REPEAT", 0.4)
    with (
        live_server(tmp_path / "run", FIELDS, simulations=3, retries=5) as server,
        Proxy(server.engine._sockets.control_endpoint) as control,
        Proxy(server.engine._sockets.data_endpoint) as data,
    ):
        with Client(server.behind(control.endpoint, data.endpoint)) as client:
            while (simulation := client.next_simulation()) is not None:
                simulation.announce(U=Field((POINTS,), 3), p=Field((POINTS,), dtype="float32"))
                try:
                    for step in range(STEPS):
                        if step == STEPS // 2 and simulation.attempt == 1 and simulation.id > 0:
                            data.cut()
                        simulation.send(step, **values(simulation.id, step))
                    simulation.finish()
                except ConnectionBroken as error:
                    simulation.fail(str(error))
                if simulation.id == 0:
                    data.cut()  # when nothing is under way
        report, metrics = server.report(), server.engine._rank.metrics
        samples = received(server)
    assert report["simulations"]["finished"] == 3
    assert samples == checksums(3)
    assert report["simulations"]["restarted"] >= 1
    assert metrics.total("shared_memory_connections") >= 2  # also over a connection made anew


def test_nothing_is_left_of_a_client_that_is_killed_in_mid_stream(tmp_path: Path) -> None:
    before = mapped()
    with live_server(tmp_path / "run", FIELDS, retries=1, client_timeout=1.0) as server:
        with solver(server, "forever") as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "streams\n"
            wait_for(lambda: mapped() == before + 1)
            process.send_signal(signal.SIGKILL)
            process.wait()
            wait_for(lambda: mapped() == before)
        with solver(server, "memory"):  # the simulation is run again
            report = server.report()
    assert report["status"] == "finished", report
    assert report["simulations"]["finished"] == 1
    assert report["samples"]["rejected"] == 0
