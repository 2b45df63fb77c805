"""libpenstock gathers the time steps of a solver without MPI in blocks, in whatever parts they are sent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from live_server import worker
from mpi import recorded, recorder
from penstock_server.ingest.ingest import Ingest
from waiting import PATIENCE

FIELDS = {"u": {"components": 2}, "v": {}, "k": {}}
STEPS = 60


@pytest.mark.parametrize("points", [1, 40, 3001])
def test_time_steps_arrive_whole_however_they_are_sent(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, points: int
) -> None:
    counts = []
    handle = Ingest._take_block

    def counted(self: Ingest, connection, header, payload) -> bool:  # type: ignore[no-untyped-def]
        counts.append(header.count)
        return handle(self, connection, header, payload)

    monkeypatch.setattr(Ingest, "_take_block", counted)
    with recorder(tmp_path / "run", FIELDS) as server, worker(server) as client:
        simulation = next(client.simulations())
        process = server.start([programs / "parts", str(STEPS), str(points)], simulation)
        assert process.communicate(timeout=PATIENCE)[0].splitlines()[-1] == "finished"
        simulation.exited()
        report = server.report()
    assert (report["time_steps"], report["duplicates_dropped"]) == (STEPS, 0)
    _, times, values = recorded(server, 0)
    assert times.tolist() == [0.5 * step for step in range(STEPS)]
    numbers = [np.arange(2 * points), np.arange(points) + 1000, np.arange(points) + 2000]
    np.testing.assert_array_equal(values, np.arange(STEPS)[:, None] + np.concatenate(numbers))
    assert 20 + 2 * 40 // 7 <= sum(counts) < STEPS  # in order and in no other message's way
