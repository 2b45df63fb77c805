"""The processes of Ray actors, on this machine and on others: whether one has ended, and ending them."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import ray
from ray.exceptions import GetTimeoutError, RayActorError

from penstock_server.engines.ray import leftovers


class Processes(Protocol):
    """The actors' processes, by the actors' names."""

    def ended(self, patience: float = 0.0) -> list[str]:
        """Who has ended, waiting so many seconds for the first."""

    def kill(self) -> None:
        """End all of them, the frozen ones too; when this returns none of them can write any more."""

    def close(self) -> None: ...

    def pid(self, name: str) -> int: ...


ANSWER_SECONDS = 5.0  # that a living actor may take to say so

END_SECONDS = 20.0  # that a node which is there may take to end the actors on it


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


class Watched:
    """Processes on this machine, by a name; asking whether one has ended costs a system call."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._descriptors: dict[str, int | None] = {}
        for name, pid in pids.items():
            try:
                self._descriptors[name] = os.pidfd_open(pid)
            except ProcessLookupError:
                self._descriptors[name] = None  # it has ended already

    def ended(self, patience: float = 0.0) -> list[str]:
        """Who has ended, waiting so many seconds for the first."""
        gone = [name for name, descriptor in self._descriptors.items() if descriptor is None]
        poller = select.poll()
        names = {descriptor: name for name, descriptor in self._descriptors.items() if descriptor is not None}
        for descriptor in names:
            poller.register(descriptor, select.POLLIN)
        return gone + [names[d] for d, _ in poller.poll(0 if gone else 1000 * patience)]

    def kill(self) -> None:
        """End all of them, the frozen ones too, and wait until they have ended (at most `leftovers.PATIENCE` for each)."""
        for descriptor in self._descriptors.values():
            if descriptor is not None:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        for descriptor in self._descriptors.values():
            if descriptor is not None:
                select.select([descriptor], [], [], leftovers.PATIENCE)

    def close(self) -> None:
        for descriptor in self._descriptors.values():
            if descriptor is not None:
                os.close(descriptor)
        self._descriptors = {}

    def pid(self, name: str) -> int:
        return self._pids[name]
