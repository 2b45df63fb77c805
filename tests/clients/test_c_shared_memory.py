"""Solvers on libpenstock, whose values reach the real server through shared memory where both run on the same node."""

from __future__ import annotations

import signal
import subprocess
import zlib
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from native import Installed, serve
from stream_program import U

from live_server import LiveServer, live_server, worker
from mpi import recorded, recorder, require
from waiting import PATIENCE, wait_for

POINTS, STEPS = 3000, 32  # the server keeps checksums of as many


def checksum(first: float, size: int) -> int:
    """Checksum, as the server computes it, of a time step with the values first, first + 1/1024, first + 2/1024, ..."""
    return zlib.crc32((first + np.arange(size) / 1024).astype(np.float32).tobytes())


def received(server: LiveServer, simulation: int) -> dict[int, int]:
    """The checksums of the simulation's time steps that the server has received."""
    return dict(server.engine._rank.status().fingerprints[simulation].steps)


def mapped() -> int:
    """How many memories of clients the server, which is this process, has mapped."""
    return Path("/proc/self/maps").read_text().count("/memfd:penstock")


@pytest.mark.parametrize(
    ("program", "enabled", "connections"), [("stream", True, 1), ("unshared", True, 0), ("stream", False, 0)]
)
@pytest.mark.parametrize("credit", ["100 kB", "1 MiB", "64 MiB"])
def test_samples_are_the_same_bit_for_bit(
    programs: Path, tmp_path: Path, program: str, enabled: bool, connections: int, credit: str
) -> None:
    with live_server(tmp_path / "run", U, credit=credit, shared_memory=enabled) as server, worker(server) as client:
        for simulation in client.simulations():
            process = server.start([programs / program, str(STEPS), str(POINTS)], simulation)
            assert process.communicate(timeout=PATIENCE)[0].splitlines()[-1] == "finished"
            a = simulation.parameters["a"]
            simulation.exited()
        report = server.report()
        samples, metrics = received(server, 0), server.engine._rank.metrics
    assert report["samples"]["unique"] == report["samples"]["trained_unique"] == STEPS
    assert report["samples"]["rejected"] == report["samples"]["duplicates_dropped"] == 0
    assert report["clients"]["bytes_received"] == STEPS * POINTS * 2 * 8
    assert metrics.total("shared_memory_connections") == connections
    assert samples == {step: checksum(a + step, 2 * POINTS) for step in range(STEPS)}


@pytest.mark.parametrize("failing", [False, True])
def test_a_simulation_after_one_that_failed_has_other_memory(programs: Path, tmp_path: Path, failing: bool) -> None:
    """Messages of the one that failed may still refer to the memory that it had."""
    with live_server(tmp_path / "run", {"u": {}}, simulations=2) as server, ExitStack() as clients:
        simulations = [clients.enter_context(worker(server)).next_simulation() for _ in range(2)]
        assert all(simulations)
        command = [programs / "many", "2", str(STEPS), str(POINTS), *(["fail"] if failing else [])]
        process = subprocess.run(command, env=server.environment(), capture_output=True, text=True, check=False)
        assert (process.returncode, process.stdout.splitlines()[-1]) == (0, "finished")
        report = server.report()
        samples, metrics = received(server, 1), server.engine._rank.metrics
    assert (report["simulations"]["finished"], report["simulations"]["failed"]) == (2 - failing, failing)
    assert metrics.total("shared_memory_connections") == 1 + failing
    assert samples == {step: checksum(1 + step, POINTS) for step in range(STEPS)}


def test_nothing_is_left_of_a_solver_that_is_killed_in_mid_stream(programs: Path, tmp_path: Path) -> None:
    before = mapped()
    with live_server(tmp_path / "run", U, retries=1, client_timeout=1.0) as server:
        with worker(server) as client:
            simulation = next(client.simulations())
            process = server.start([programs / "stream", "100000", str(POINTS), "pause_ms=20"], simulation)
            wait_for(lambda: mapped() == before + 1 and server.engine.status().received > 2)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            wait_for(lambda: mapped() == before)
            simulation.fail("killed")
        with worker(server) as client:  # the simulation is run again
            simulation = next(client.simulations())
            process = server.start([programs / "stream", str(STEPS), str(POINTS)], simulation)
            assert process.communicate(timeout=PATIENCE)[0].splitlines()[-1] == "finished"
            simulation.exited()
            report = server.report()
    assert (report["status"], report["simulations"]["finished"]) == ("finished", 1)
    assert report["samples"]["rejected"] == 0


@pytest.mark.slow
def test_each_mpi_rank_has_memory_of_its_own(tmp_path: Path) -> None:
    require("mpirun", "mpicc")
    points, steps = 48, 5
    fields, connections = [], []
    installed = Installed(tmp_path)
    folder = installed.example("heat_c_mpi")
    parameters = {name: [200.0, 200.001] for name in ("initial", "left", "right", "bottom", "top")}
    for ranks in (1, 3):
        with recorder(tmp_path / f"run{ranks}", {"T": {}}, parameters=parameters) as server:
            serve(server, installed, [folder / "heat", str(points), str(steps)], ranks=ranks)
            report = server.report()
            connections.append(server.engine._recorder.metrics.total("shared_memory_connections"))
        assert (report["status"], report["time_steps"], report["duplicates_dropped"]) == ("finished", steps, 0)
        fields.append(recorded(server, 0)[2])
    assert connections == [1, 3]
    np.testing.assert_array_equal(fields[0], fields[1])


@pytest.mark.parametrize("seed", range(5))
def test_payloads_in_the_ring_never_overlap(programs: Path, seed: int) -> None:
    done = subprocess.run([programs / "ring", str(seed), "20000"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) > 5000
