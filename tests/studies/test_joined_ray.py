"""Whole studies on a Ray that runs already (`--ray-address`): it is there afterwards as it was before. A real cluster, real kills."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from command import events, penstock, report, running, wait_for
from paced_study import accounted, write_study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(550)]

CORES = 4
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
LOOK = """
import json, logging, sys
import ray
from ray.util import placement_group_table
ray.init(address=sys.argv[1], logging_level=logging.CRITICAL)
groups = [group["state"] for group in placement_group_table().values()]
free = ray.available_resources()
print(json.dumps({"free": free.get("CPU", 0), "groups": [state for state in groups if state != "REMOVED"],
                  "nodes": [node["NodeManagerAddress"] for node in ray.nodes()]}))
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has set up a Ray of its own in this process has set a token for it."""
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")


class RunningRay:
    """A cluster of one node. address: of its GCS."""

    def __init__(self, folder: Path) -> None:
        port, client = free_port(), free_port()
        self.address, self._client_port = f"127.0.0.1:{port}", client
        options = {
            "node-ip-address": "127.0.0.1",
            "port": port,
            "ray-client-server-port": client,
            "num-cpus": CORES,
            "include-dashboard": "false",
            "temp-dir": folder,
            "object-store-memory": 80 * 2**20,
        }
        self.process = subprocess.Popen(
            [*RAY, "start", "--head", "--block", *(f"--{name}={value}" for name, value in options.items())],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def look(self) -> dict[str, Any]:
        """Free cores, and placement groups that are still there; asked by somebody else."""
        asked = subprocess.run(
            [sys.executable, "-c", LOOK, self.address], capture_output=True, text=True, timeout=120, check=False
        )
        return json.loads(asked.stdout) if asked.returncode == 0 else {"error": asked.stderr}

    def actors(self) -> list[str]:
        """The titles of processes in which actors of a study live."""
        titles = [p.info["cmdline"] for p in psutil.process_iter(["cmdline"]) if self._is_ours(p)]
        return [title[0] for title in titles if title and title[0] in ("ray::CoordinatorActor", "ray::RankActor")]

    def client(self) -> str:
        """The address of its Ray Client server."""
        return f"ray://{self.node()}:{self._client_port}"

    def node(self) -> str:
        """The address of its node."""
        return str(self.look()["nodes"][0])

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return any(parent.pid == self.process.pid for parent in process.parents())
        except psutil.Error:
            return False

    def as_before(self) -> None:
        wait_for(lambda: {"free": CORES, "groups": []}.items() <= self.look().items(), 60)
        wait_for(lambda: self.actors() == [], 30)

    def end(self) -> None:
        members = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        self.process.terminate()
        self.process.wait(30)
        for member in members:
            try:
                member.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(members, timeout=20)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RunningRay]:
    folder = Path(tempfile.mkdtemp(prefix="penstock-test-ray-"))  # short: the paths of sockets are limited
    ray = RunningRay(folder)
    try:
        wait_for(lambda: "free" in ray.look(), 120)
        yield ray
    finally:
        ray.end()
        shutil.rmtree(folder, ignore_errors=True)


def server_pids(out: Path) -> list[int]:
    begun = events(out, "started")[-1]
    return [begun["pid"], *begun["ranks"]]


def test_a_study_on_a_running_ray_whose_coordinator_dies(cluster: RunningRay, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with running("run", write_study(tmp_path, concurrency=2), "--out", out, "--ray-address", cluster.address) as study:
        wait_for(lambda: len(events(out, "checkpoint")) > 1, 120)
        assert len(cluster.actors()) == 2
        os.kill(server_pids(out)[0], signal.SIGKILL)
        printed, _ = study.communicate(timeout=300)
    assert study.returncode == 0, printed
    assert accounted(out)["incarnations"] == 2
    assert [event["kind"] for event in events(out, "restarted")] == ["coordinator"]
    cluster.as_before()
    assert not (out / ".ray").exists()


def test_a_killed_study_leaves_its_place_and_goes_on_in_another(cluster: RunningRay, tmp_path: Path) -> None:
    """Through a Ray Client server, and then without."""
    out = tmp_path / "run"
    with running("run", write_study(tmp_path, concurrency=2), "--out", out, "--ray-address", cluster.client()) as study:
        wait_for(lambda: len(events(out, "checkpoint")) > 1, 120)
        study.kill()
    penstock("resume", out, "--ray-address", cluster.address)
    assert accounted(out)["incarnations"] == 2
    cluster.as_before()


def test_ctrl_c_says_how_to_go_on(cluster: RunningRay, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with running("run", write_study(tmp_path), "--out", out, "--ray-address", cluster.address) as study:
        wait_for(lambda: events(out, "finished"), 120)
        study.send_signal(signal.SIGINT)
        printed, _ = study.communicate(timeout=60)
    assert f"continue it with: penstock resume {out} --ray-address {cluster.address}" in printed
    assert report(out)["status"] == "stopped"
    cluster.as_before()


def test_what_a_cluster_cannot_give_is_named(cluster: RunningRay, tmp_path: Path) -> None:
    """Asked in a process of its own, with less patience than a study has."""
    (tmp_path / "keys.json").write_text("{}")
    ask = (
        "import sys; from pathlib import Path; from penstock.study_file import load_study; "
        "from penstock_server.ray_engine.joined_ray import JoinedRay; "
        "JoinedRay(sys.argv[1], load_study(sys.argv[2]), Path(sys.argv[3]), {}, threads=9, log=print, patience=4.0).start()"
    )
    done = subprocess.run(
        [sys.executable, "-c", ask, cluster.address, write_study(tmp_path), tmp_path],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "waiting up to 4 s for the Ray cluster to give 10 CPU on one node" in done.stdout
    assert (
        f"--ray-address {cluster.address}: the Ray cluster has not given 10 CPU on one node (the one that [server] host = "
        f'"127.0.0.1" names) within 4 s; its nodes: {cluster.node()} has 4 CPU; free in all: 4 CPU.'
    ) in done.stderr
    cluster.as_before()


def test_nobody_there_and_addresses_that_its_nodes_do_not_have(cluster: RunningRay, tmp_path: Path) -> None:
    study = write_study(tmp_path)
    nobody = f"127.0.0.1:{free_port()}"
    said = penstock("run", study, "--out", tmp_path / "a", "--ray-address", nobody, code=1)
    assert f"--ray-address {nobody}: no Ray answers there" in said
    said = penstock(
        *("run", study, "--out", tmp_path / "b", "--ray-address", cluster.address, "--set", "server.host=198.51.100.7"),
        code=1,
    )
    assert '[server] host = "198.51.100.7": the Ray node ' + cluster.node() + " cannot listen there" in said
    assert f'set host = "{cluster.node()}"' in said
    cluster.as_before()
