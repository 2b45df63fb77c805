"""What is asked of the nodes of a Ray that runs already, and done there: each function here that is no method runs on the node."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError

from penstock_client.errors import PenstockError
from penstock_server.own_address import own_address
from penstock_server.ray_engine.local_ray import Watched

ANSWER_SECONDS = 5.0  # that a living actor may take to say so
END_SECONDS = 20.0  # that a node which is there may take to end the actors on it


@dataclass(frozen=True)
class Node:
    """What a node says of itself.

    address: by which Ray knows it. machine: the same for processes that reach each other on 127.0.0.1.
    keys: a digest of the study's keys.json there. trouble: why no socket can listen on [server] host there, "" where one can.
    """

    address: str
    machine: str
    keys: str
    trouble: str


def describe(keys: str, host: str) -> Node:
    """The node that this runs on. keys: path of the study's keys.json. host: [server] host."""
    trouble = ""
    with socket.socket() as probe:
        try:
            probe.bind((own_address(host), 0))
        except PenstockError as error:
            trouble = str(error)
        except OSError as error:
            trouble = error.strerror or str(error)
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return Node(address, machine(), fingerprint(Path(keys)), trouble)


def machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {Path('/proc/self/ns/net').stat().st_ino}"


def fingerprint(path: Path) -> str:
    """A digest of a file, or why there is none."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        return error.strerror or str(error)


def end_actor(name: str, pid: int) -> None:
    """Kill a process that is still Ray's, and wait until it has ended."""
    still = {}
    with suppress(OSError):
        if (Path("/proc") / str(pid) / "cmdline").read_bytes().startswith(b"ray::"):
            still[name] = pid
    processes = Watched(still)
    processes.kill()
    processes.close()


class RemoteProcesses:
    """Actors on other machines: Ray says which of them it has lost, and a task on the node of each ends what is left.

    Args:
        pids, actors: by the actors' names, in the order of their bundles.
        on_node: starts a function of this module in the place of a bundle: on_node(bundle, function, *arguments).
    """

    def __init__(self, pids: Mapping[str, int], actors: Mapping[str, Any], on_node: Callable[..., Any]) -> None:
        self._pids, self._actors, self._on_node = dict(pids), dict(actors), on_node
        self._lost: list[str] = []

    def ended(self, patience: float = 0.0) -> list[str]:
        """Whom Ray has lost; it is asked where there is time."""
        for name, actor in self._actors.items() if patience and not self._lost else ():
            try:
                ray.get(actor.pid.remote(), timeout=ANSWER_SECONDS)
            except RayActorError:
                self._lost.append(name)
            except GetTimeoutError:
                continue  # busy, or frozen: silence is judged elsewhere
        return list(self._lost)

    def kill(self) -> None:
        ending = [self._on_node(bundle, end_actor, *process) for bundle, process in enumerate(self._pids.items())]
        if ending:
            _, unheard = ray.wait(ending, num_returns=len(ending), timeout=END_SECONDS)
            for task in unheard:  # its node is gone, and they with it; another must not be taken for it
                ray.cancel(task, force=True)

    def close(self) -> None:
        self._actors = {}

    def pid(self, name: str) -> int:
        return self._pids[name]
