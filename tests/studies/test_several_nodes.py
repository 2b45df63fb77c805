"""A study whose trainer ranks run on two hosts: network namespaces with a cable between them, and a real Ray over both."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from command import events, running
from network_namespace import other_host
from paced_study import accounted, write_study
from running_ray import be_user, kill_node, running_ray

from waiting import PATIENCE, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def network(pid: int) -> int:
    """Processes of one host have the same."""
    return Path(f"/proc/{pid}/ns/net").stat().st_ino


def far_rank(out: Path) -> int:
    """The one trainer rank that lives on the other host."""
    (pid,) = [rank for rank in events(out, "started")[-1]["ranks"] if network(rank) != network(os.getpid())]
    return int(pid)


def goes_on(out: Path) -> None:
    """Wait until the life of the server that is the latest has written a checkpoint."""
    before = len(events(out, "checkpoint"))
    wait_for(lambda: len(events(out, "checkpoint")) > before)


def test_a_rank_and_then_its_whole_node_die(
    tmp_path: Path, root_and_iproute2: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node is replaced by another; the ranks' sockets listen on the addresses of their own hosts."""
    out = tmp_path / "run"
    be_user(tmp_path, monkeypatch)
    with other_host() as cable, running_ray(2, tmp_path, cable.here) as cluster:
        node = cluster.add_node(cable, 1)
        wait_for(lambda: len(cluster.look()["nodes"]) == 2)
        changes = [f'server.host="{cable.network}"', "training.ranks=2"]
        arguments = [word for change in changes for word in ("--set", change)]
        study = write_study(tmp_path, concurrency=2)
        with running("run", study, "--out", out, "--ray-address", cluster.address, *arguments) as process:
            wait_for(lambda: events(out, "checkpoint"))
            os.kill(far_rank(out), signal.SIGKILL)
            wait_for(lambda: len(events(out, "started")) == 2)
            goes_on(out)
            kill_node(node)
            wait_for(lambda: len(events(out, "restarted")) == 2)
            cluster.add_node(cable, 1)
            wait_for(lambda: len(events(out, "started")) == 3)
            assert far_rank(out)
            printed, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, printed
        assert accounted(out)["incarnations"] == 3
        cluster.cores = 3
        cluster.as_before()
