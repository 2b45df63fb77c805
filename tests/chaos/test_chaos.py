"""The short schedule: rows of docs/reliability.md that no other test covers, and a brief soak. `make chaos` runs the long one."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import rows
import soak

from traces import left_over, shared_memory

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.mark.parametrize(
    "name", ["network_cut_30s", "ranks_network_cut", "socket_thread_died", "disk_full", "stale_worker", "strangers"]
)
def test_a_fault_costs_no_sample(name: str, tmp_path: Path, root_and_iproute2: None) -> None:
    before = shared_memory()
    end = rows.ROWS[name](tmp_path / "row", random.Random(name))
    assert end["wrong"] == []
    assert left_over(str(tmp_path / "row"), tmp_path / "row" / "run", before) == []


def test_a_brief_soak_loses_nothing_and_leaves_nothing_behind(tmp_path: Path, root_and_iproute2: None) -> None:
    end = soak.run(tmp_path / "soak", number=25, seconds=60.0, seed=3, simulations=150, server_timeout=20.0)
    assert end["wrong"] == []
    assert sum(end["faults"].values()) > 10
