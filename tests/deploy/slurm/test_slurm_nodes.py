"""Studies whose server's job has two nodes of a real Slurm: trainer ranks on each, under a Ray of the job's own."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest
from command import events, penstock, started
from slurm_cluster import queue, slurm
from slurm_studies import ends_well, in_mid_study, write_profile, write_study

from traces import processes_with
from waiting import wait_for

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.usefixtures("slurm_commands", "nothing_left"),
]

RANKS = ("--set", "training.ranks=2")


def profile_of(folder: Path, nodes: int = 2) -> Path:
    server = {"nodes": nodes, "memory": "700 MiB", "sbatch": []}
    return write_profile(folder, server=server, workers={"sbatch": [], "memory": "100 MiB"})


def rays() -> list[psutil.Process]:
    """The processes of Ray that jobs of this Slurm have started."""
    names = ("raylet", "gcs_server")
    jobs = processes_with("SLURM_CONF", os.environ["SLURM_CONF"])
    return [p for p in jobs if p.name() in names or p.name().startswith("ray::")]


def nodes_of(ranks: list[int]) -> list[str | None]:
    """Only the step on the other node has Slurm's name for its node; the head runs under the server itself."""
    return [psutil.Process(rank).environ().get("SLURMD_NODENAME") for rank in ranks]


def test_ranks_on_two_nodes_one_of_which_dies_and_then_its_node(tmp_path: Path) -> None:
    out = tmp_path / "run"
    following = started("submit", write_study(tmp_path), "--profile", profile_of(tmp_path), "--out", out, *RANKS)
    in_mid_study(out)
    assert len(rays()) > 4
    ranks = events(out, "started")[-1]["ranks"]
    assert sorted(map(str, nodes_of(ranks))) == ["None", "n2"]
    far = ranks[nodes_of(ranks).index("n2")]
    psutil.Process(far).kill()
    in_mid_study(out, len(events(out, "finished")) + 1, incarnation=2)
    (server,) = (id_ for id_, state in queue("-server").items() if state == "RUNNING")
    slurm("scontrol", "update", "NodeName=n2", "State=DOWN", "Reason=test")
    wait_for(lambda: server not in queue("-server"))
    slurm("scontrol", "update", "NodeName=n2", "State=RESUME")
    ends_well(following, out, incarnations=3)
    wait_for(lambda: not rays())


def test_ranks_that_cannot_be_dealt_out_are_named(tmp_path: Path) -> None:
    study, profile = write_study(tmp_path), profile_of(tmp_path)
    said = penstock("submit", study, "--profile", profile, "--out", tmp_path / "run", code=2)
    assert "[server] nodes = 2 with [training] ranks = 1: expected as many trainer ranks on each node" in said
    said = penstock("check", study, "--profile", profile, "--set", "study.engine=inline", code=2)
    assert "[server] nodes = 2: this study trains in one process: expected nodes = 1" in said
    assert not (tmp_path / "run").exists()
