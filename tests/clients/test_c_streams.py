"""libpenstock streams to the real server."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from stream_program import ABANDONED, REFUSED, SERVER_LOST, U

from live_server import live_server, worker
from waiting import PATIENCE


def expected_field(a: float, step: int, points: int) -> Any:
    """What clients/c/tests/stream.c sends, as the server keeps it."""
    return (a + step + np.arange(2 * points).reshape(points, 2) / 1024).astype(np.float32)


def test_every_value_arrives_once(programs: Path, tmp_path: Path) -> None:
    steps, points = 12, 30
    with live_server(tmp_path / "run", U, simulations=1, validation_simulations=1) as server, worker(server) as client:
        wanted = []
        for simulation in client.simulations():
            process = server.start([programs / "stream", str(steps), str(points), "static"], simulation)
            lines = process.communicate(timeout=PATIENCE)[0].splitlines()
            assert process.returncode == 0, lines
            a = simulation.parameters["a"]
            assert lines[0] == f"simulation {simulation.id} attempt 1 a={a:.17g}"
            wanted.append(lines[1])
            simulation.exited()
        report = server.report()
    # the mesh is wanted from the first simulation alone
    assert wanted == ["cell_volumes wanted: 1", "cell_volumes wanted: 0"]
    assert report["status"] == "finished"
    assert report["simulations"]["finished"] == 2
    assert report["samples"]["unique"] == report["samples"]["expected"] == steps
    assert report["samples"]["rejected"] == report["samples"]["duplicates_dropped"] == 0
    with h5py.File(tmp_path / "run" / "mesh.h5") as mesh:
        np.testing.assert_array_equal(mesh["cell_volumes"], 1.0 + np.arange(points)[:, None])
    with h5py.File(tmp_path / "run" / "validation_snapshots.h5") as pictures:
        seen = [picture for picture in pictures.values() if isinstance(picture, h5py.Group)]
        assert len(seen) == steps
        for picture in seen:
            field = expected_field(float(picture.attrs["inputs"][0]), int(picture.attrs["step"]), points)
            np.testing.assert_allclose(picture["u/true"], field, rtol=1e-6)


def test_solver_ranks_each_send_their_piece(programs: Path, tmp_path: Path) -> None:
    steps, points = 5, 7
    with live_server(tmp_path / "run", U, validation_simulations=1) as server, worker(server) as client:
        for simulation in client.simulations():
            command: list[str | Path] = [programs / "stream", str(steps), str(points), "ranks=3"]
            ranks = [server.start([*command, f"rank={rank}"], simulation) for rank in range(3)]
            assert [r.communicate(timeout=PATIENCE)[0].splitlines()[-1] for r in ranks] == ["finished"] * 3
            simulation.exited()
        report = server.report()
    assert report["samples"]["unique"] == report["samples"]["expected"] == steps
    with h5py.File(tmp_path / "run" / "validation_snapshots.h5") as pictures:
        picture = next(p for p in pictures.values() if isinstance(p, h5py.Group))
        field = expected_field(float(picture.attrs["inputs"][0]), int(picture.attrs["step"]), points)
        np.testing.assert_allclose(picture["u/true"], field, rtol=1e-6)


@pytest.mark.parametrize("credit", [100, 4000, "1 MiB"])
def test_credit_never_stops_a_stream_for_good(programs: Path, tmp_path: Path, credit: int | str) -> None:
    """The credit is smaller than one piece, enough for a few pieces, or enough for the whole stream."""
    steps, points = 40, 50
    with live_server(tmp_path / "run", U, credit=credit) as server, worker(server) as client:
        for simulation in client.simulations():
            process = server.start([programs / "stream", str(steps), str(points)], simulation)
            assert process.communicate(timeout=PATIENCE)[0].splitlines()[-1] == "finished"
            simulation.exited()
        report = server.report()
    assert report["samples"]["unique"] == report["samples"]["expected"] == steps
    assert report["clients"]["bytes_received"] == steps * points * 2 * 8


def test_a_refused_piece_is_reported_to_the_solver(programs: Path, tmp_path: Path) -> None:
    with live_server(tmp_path / "run", U) as server, worker(server) as client:
        simulation = next(client.simulations())
        process = server.start([programs / "stream", "20", "4", "nan_at=3", "pause_ms=20"], simulation)
        output = process.communicate(timeout=PATIENCE)[0]
        assert process.returncode == REFUSED
        assert "time step 3 of simulation 0 has nan at element 0" in output
        assert output.rstrip().endswith("(refused: not_finite)")


def test_a_field_that_the_study_does_not_have_is_refused(programs: Path, tmp_path: Path) -> None:
    with live_server(tmp_path / "run", {"w": {}}) as server, worker(server) as client:
        simulation = next(client.simulations())
        process = server.start([programs / "stream", "2", "4"], simulation)
        output = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == REFUSED
    assert "announce: field 'u': the study has w (refused: unknown_field)" in output


def test_a_failure_is_reported_to_the_server(programs: Path, tmp_path: Path) -> None:
    with live_server(tmp_path / "run", U) as server, worker(server) as client:
        simulation = next(client.simulations())
        process = server.start([programs / "stream", "9", "4", "fail_at=2"], simulation)
        assert process.communicate(timeout=PATIENCE)[0].splitlines()[-1] == "failed"
        report = server.report()
    assert report["simulations"]["failed"] == 1
    assert "diverged on purpose" in (tmp_path / "run" / "events.jsonl").read_text()


@pytest.mark.parametrize(("message", "text"), [(1, "Str\ufffdmung"), (2, "Str\ufffd"), (3, "")])
def test_a_failure_is_reported_whatever_its_text_is(programs: Path, tmp_path: Path, message: int, text: str) -> None:
    with live_server(tmp_path / "run", U) as server, worker(server) as client:
        simulation = next(client.simulations())
        process = server.start([programs / "stream", "9", "4", "fail_at=2", f"message={message}"], simulation)
        assert process.communicate(timeout=PATIENCE)[0].splitlines()[-1] == "failed"
        assert server.report()["failures"]["0"] == text


def test_a_time_step_that_is_not_whole_is_refused(programs: Path, tmp_path: Path) -> None:
    with live_server(tmp_path / "run", U) as server, worker(server) as client:
        simulation = next(client.simulations())
        process = server.start([programs / "stream", "9", "4", "missing=2"], simulation)
        output = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 1
    assert output.splitlines()[-1] == (
        "step_sent: penstock_step_sent: 6 of 8 elements of field u have been sent in time step 0: send all fields of a time step"
    )


def test_signals_that_interrupt_calls_do_no_harm(programs: Path, tmp_path: Path) -> None:
    with live_server(tmp_path / "run", U) as server, worker(server) as client:
        for simulation in client.simulations():
            process = server.start([programs / "interrupted", "20", "30"], simulation)
            output = process.communicate(timeout=PATIENCE)[0]
            assert (process.returncode, output.splitlines()[-1]) == (0, "finished"), output
            simulation.exited()
        assert server.report()["samples"]["unique"] == 20


def test_another_attempt_is_refused(programs: Path, tmp_path: Path) -> None:
    with live_server(tmp_path / "run", U) as server, worker(server) as client:
        simulation = next(client.simulations())
        simulation.attempt += 1
        process = server.start([programs / "stream", "2", "4"], simulation)
        output = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == REFUSED
    assert "begin: attempt 2 of simulation 0: attempt 1 is the current one (refused: stale_attempt)" in output


def test_a_stopping_study_stops_the_solver(programs: Path, tmp_path: Path) -> None:
    with live_server(tmp_path / "run", U) as server, worker(server) as client:
        simulation = next(client.simulations())
        process = server.start([programs / "stream", "100000", "4", "pause_ms=10"], simulation)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("simulation 0")
        while server.engine.status().received == 0:
            time.sleep(0.01)
        server.engine.stop("the test says so")
        output = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode in (ABANDONED, REFUSED, SERVER_LOST), output
    assert "simulation 0" in output or "study is stopping" in output or "lost the connection" in output
