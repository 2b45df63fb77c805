"""A field larger than what the server takes in one message arrives in several pieces."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from live_server import live_server, worker
from penstock_client import Field
from penstock_client.wire import MAX_PIECE_BYTES
from waiting import PATIENCE

POINTS = MAX_PIECE_BYTES // 16 + 10_001  # of two float64 each


def test_a_field_larger_than_a_message_arrives_whole(programs: Path, tmp_path: Path) -> None:
    fields = {"u": {"components": 2}}
    by_python = set()
    with (
        live_server(tmp_path / "run", fields, validation_simulations=2, max_message=MAX_PIECE_BYTES) as server,
        worker(server) as client,
    ):
        for simulation in client.simulations():
            a = simulation.parameters["a"]
            if by_python or not simulation.validation:
                process = server.start([programs / "stream", "1", str(POINTS), "static"], simulation)
                assert process.communicate(timeout=PATIENCE)[0].splitlines()[-1] == "finished"
                simulation.exited()
            else:
                by_python.add(np.float32(a))
                field = Field((POINTS,), components=2)
                simulation.announce(u=field)
                simulation.send(0, u=a + np.arange(2 * POINTS).reshape(POINTS, 2) / 1024)
                simulation.finish()
        report = server.report()
    assert report["simulations"]["finished"] == 3
    assert report["samples"]["unique"] == report["samples"]["expected"] == 1
    assert report["samples"]["rejected"] == report["samples"]["duplicates_dropped"] == 0
    with h5py.File(tmp_path / "run" / "validation_snapshots.h5") as file:
        pictures = [picture for picture in file.values() if isinstance(picture, h5py.Group)]
        seen = set()
        for picture in pictures:
            a = float(picture.attrs["inputs"][0])
            seen.add(np.float32(a))
            true = np.array(picture["u/true"])
            np.testing.assert_allclose(true, a + np.arange(2 * POINTS).reshape(POINTS, 2) / 1024, rtol=1e-6)
    assert by_python < seen  # and one by libpenstock
    with h5py.File(tmp_path / "run" / "mesh.h5") as mesh:
        np.testing.assert_array_equal(mesh["cell_volumes"], 1.0 + np.arange(POINTS)[:, None])
