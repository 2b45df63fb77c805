"""Studies whose server and workers are one job of a real Slurm: workers that die or freeze, a server that dies, cancelling."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest
from command import events, penstock, report, started
from slurm_cluster import queue, slurm
from slurm_studies import QUICK_SIMULATIONS, ends_well, in_mid_study, write_profile, write_quick_study, write_study

from penstock.run.directory import holder
from waiting import wait_for

SIMULATIONS = 12

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.usefixtures("slurm_commands", "nothing_left"),
]


def profile_of(folder: Path) -> Path:
    return write_profile(folder, workers={"start": "together", "count": 1, "each": 2, "time": "30 min"})


def test_dead_and_frozen_workers_are_started_again_in_the_one_job(tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = ("--set", "server.client_timeout=4 s", "--set", f"solver.simulations={SIMULATIONS}")
    study, profile = write_study(tmp_path), profile_of(tmp_path)
    following = started("submit", study, "--profile", profile, "--out", out, *settings)
    in_mid_study(out)
    job, waiting = sorted({id_.partition("+")[0] for id_ in queue()}, key=int)
    assert queue() == {
        f"{job}+0": "RUNNING", f"{job}+1": "RUNNING", f"{waiting}+0": "PENDING", f"{waiting}+1": "PENDING"
    }  # fmt: skip
    assert f"server {job} running on n1, another in waiting; workers: in the same job" in penstock("status", out)
    dead, frozen = (psutil.Process(event["pid"]) for event in events(out, "client"))
    assert {worker.environ()["SLURMD_NODENAME"] for worker in (dead, frozen)} == {"n2"}
    dead.kill()
    frozen.suspend()
    wait_for(lambda: len(events(out, "client")) >= 4)  # two more
    said = ends_well(following, out, simulations=SIMULATIONS)
    assert "has been silent or stuck for too long and is replaced" in said
    assert not frozen.is_running()
    assert {path.name for path in (out / "slurm").glob("*s*h")} == {"server.sbatch", "worker.sh"}


def test_a_server_that_dies_goes_on_with_its_workers_in_the_job_in_waiting(tmp_path: Path) -> None:
    out = tmp_path / "run"
    penstock("submit", write_quick_study(tmp_path), "--profile", profile_of(tmp_path), "--out", out, "--detach")
    in_mid_study(out)
    first = {id_ for id_, state in queue().items() if state == "RUNNING"}
    server = holder(out)
    assert server is not None
    os.kill(server, signal.SIGKILL)
    in_mid_study(out, len(events(out, "finished")) + 1, incarnation=2)
    assert not first & queue().keys()
    assert "stopping with a checkpoint" in penstock("cancel", out)
    assert queue() == {}
    found = report(out)
    assert (found["status"], found["incarnations"]) == ("stopped", 2)
    assert found["samples"]["received"] - found["samples"]["duplicates_dropped"] == found["samples"]["unique"]


def test_a_lost_node_of_the_workers_costs_the_job_and_the_one_in_waiting_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    following = started("submit", write_quick_study(tmp_path), "--profile", profile_of(tmp_path), "--out", out)
    in_mid_study(out)
    first = {id_ for id_, state in queue().items() if state == "RUNNING"}
    slurm("scontrol", "update", "NodeName=n2", "State=DOWN", "Reason=test")
    wait_for(lambda: not first & queue().keys())
    slurm("scontrol", "update", "NodeName=n2", "State=RESUME")
    ends_well(following, out, incarnations=2, simulations=QUICK_SIMULATIONS)
