"""Rows of the table in which many clients fail at once; rows.py has the table."""

from __future__ import annotations

import os
import random
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import faults
from accounting import ended
from network_namespace import other_host
from world import world

TOGETHER = 4  # clients that fail at the same moment


def every_simulation_failed(folder: Path, rng: random.Random) -> dict[str, Any]:
    """SIGKILL to all four local workers at the same moment: before any simulation has finished, and in mid-study."""
    with world(folder, concurrency=TOGETHER, pause=0.02) as study:
        for finished in (0, 20):
            study.until(
                lambda finished=finished: (
                    study.finished() >= finished
                    and len(study.pids("worker")) == TOGETHER
                    and len(study.events("assigned")) - len(study.events("failed", "finished", "returned")) == TOGETHER
                )
            )
            assert faults.kill_all_workers(study, rng)
            study.until(lambda finished=finished: len(study.events("client_lost")) >= TOGETHER * (1 + finished // 20))
        end = ended(study)
        lost = study.events("client_lost")
    if len(lost) != 2 * TOGETHER:
        end["wrong"].append(f"{len(lost)} clients were lost, expected {2 * TOGETHER}")
    return end


def node_lost(folder: Path, rng: random.Random) -> dict[str, Any]:
    """A host with three workers vanishes at once: no connection of theirs is closed."""
    with other_host() as cable, world(folder, host=cable.here, simulations=120) as study:
        study.until((study.out / "connect.json").exists)
        far = {study.add_worker(through=cable.command) for _ in range(3)}
        study.until(lambda: far <= {event["pid"] for event in study.events("assigned")} and study.finished() >= 20)
        cable.cut()
        for pid in far:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        end = ended(study)
        lost = {event["pid"] for event in study.events("client_lost")}
    if not far <= lost:
        end["wrong"].append(f"clients {sorted(far - lost)} of the lost host were not given up")
    return end
