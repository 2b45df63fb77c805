"""A Ray cluster that somebody else has started: real processes, on this host and on others."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from network_namespace import Cable

from waiting import PATIENCE, wait_for

RAY = [sys.executable, "-m", "ray.scripts.scripts"]
OBJECT_STORE = f"--object-store-memory={80 * 2**20}"
LOOK = """
import json, logging, os, pathlib, sys
if (pathlib.Path.home() / ".ray" / "auth_token").exists():
    os.environ["RAY_AUTH_MODE"] = "token"
import ray
from ray.util import placement_group_table
ray.init(address=sys.argv[1], logging_level=logging.CRITICAL)
groups = [group["state"] for group in placement_group_table().values()]
free = ray.available_resources()
print(json.dumps({"free": free.get("CPU", 0), "groups": [state for state in groups if state != "REMOVED"],
                  "nodes": [node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]]}))
"""


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def users_environment(home: Path) -> dict[str, str]:
    """Of a user with that home, where Ray looks for a token: without what tests, or a Ray of this process's own, have set."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    # docs/elsewhere.md, Busy machines: beside other tests actors would wait minutes for a core.
    busy = {"RAY_worker_niceness": "0", "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": f"{PATIENCE:.0f}"}
    return {**ours, **busy, "RAY_USAGE_STATS_ENABLED": "0", "HOME": str(home)}


def be_user(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is started from here on has that user's environment."""
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    for name, value in users_environment(home).items():
        monkeypatch.setenv(name, value)


def give_token(home: Path) -> None:
    """As `ray get-auth-token --generate`: from now on this user's `ray start` makes clusters that ask for it."""
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").write_text(secrets.token_hex(32))


class RunningRay:
    """A cluster with a head node of `cores` at `host`, of the user with that home. address: of its GCS."""

    def __init__(self, folder: Path, cores: int, host: str, home: Path) -> None:
        self._environment = users_environment(home)
        port, client = free_port(host), free_port(host)
        self.cores, self.address, self._client_port = cores, f"{host}:{port}", client
        self._nodes: list[subprocess.Popen[bytes]] = []
        options = {
            "node-ip-address": host,
            "port": port,
            "ray-client-server-port": client,
            "num-cpus": cores,
            "include-dashboard": "false",
            "temp-dir": folder,
        }
        self._start([], "--head", *(f"--{name}={value}" for name, value in options.items()))

    def add_node(self, cable: Cable, cores: int) -> subprocess.Popen[bytes]:
        """A further node, on the other host."""
        return self._start(
            cable.command(), f"--address={self.address}", f"--node-ip-address={cable.there}", f"--num-cpus={cores}"
        )

    def look(self) -> dict[str, Any]:
        """Free cores, living nodes, and placement groups that are still there; asked by somebody else."""
        asked = subprocess.run(
            [sys.executable, "-c", LOOK, self.address],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            env=self._environment,
        )
        return json.loads(asked.stdout) if asked.returncode == 0 else {"error": asked.stderr}

    def actors(self) -> list[str]:
        """The titles of processes in which actors of a study live; a method that runs there may be part of its title."""
        titles = [p.info["cmdline"] for p in psutil.process_iter(["cmdline"]) if self._is_ours(p)]
        return [
            title[0] for title in titles if title and title[0].startswith(("ray::CoordinatorActor", "ray::RankActor"))
        ]

    def client(self) -> str:
        """The address of its Ray Client server."""
        return f"ray://{self.node()}:{self._client_port}"

    def node(self) -> str:
        """The address of its head node."""
        return str(self.look()["nodes"][0])

    def as_before(self) -> None:
        wait_for(lambda: {"free": self.cores, "groups": []}.items() <= self.look().items())
        wait_for(lambda: self.actors() == [])

    def end(self) -> None:
        for node in self._nodes:
            kill_node(node)

    def _start(self, where: list[str], *options: str) -> subprocess.Popen[bytes]:
        command = [*where, *RAY, "start", "--block", OBJECT_STORE, *options]
        node = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self._environment)
        self._nodes.append(node)
        return node

    def _is_ours(self, process: psutil.Process) -> bool:
        pids = [node.pid for node in self._nodes]
        try:
            return any(parent.pid in pids for parent in process.parents())
        except psutil.Error:
            return False


def kill_node(node: subprocess.Popen[bytes]) -> None:
    """All that runs of it, at once, as when its power fails."""
    if node.poll() is not None:
        return
    members = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
    for member in members:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(members, timeout=PATIENCE)
    node.wait(PATIENCE)


@contextmanager
def running_ray(cores: int, home: Path, host: str = "127.0.0.1") -> Iterator[RunningRay]:
    folder = Path(tempfile.mkdtemp(prefix="penstock-test-ray-"))  # short: the paths of sockets are limited
    ray = RunningRay(folder, cores, host, home)
    try:
        deadline = time.monotonic() + 120
        while "free" not in (seen := ray.look()):
            assert time.monotonic() < deadline, seen["error"]
        yield ray
    finally:
        ray.end()
        shutil.rmtree(folder, ignore_errors=True)
