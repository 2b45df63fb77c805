"""The processes of Ray actors, on this machine and on others: noticing that one has ended, and ending them."""

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

from penstock_server.study import TimeoutsSection


class ActorProcesses(Protocol):
    """The processes of actors, by the actors' names."""

    def ended(self, patience: float = 0.0) -> list[str]:
        """Return the names of those that have ended, after waiting up to `patience` seconds for the first."""

    def kill(self) -> None:
        """Kill all of them, frozen ones too; once this returns none of them can write any more."""

    def close(self) -> None:
        """Stop watching."""

    def pid(self, name: str) -> int:
        """Return the process id of an actor."""


def end_actor(name: str, pid: int, kill_timeout: float) -> None:
    """Kill a process on this node if it is still one of Ray's, and wait until it has ended.

    Args:
        name: the actor's name.
        pid: its process id.
        kill_timeout: seconds for it to end.
    """
    still = {}
    with suppress(OSError):
        if (Path("/proc") / str(pid) / "cmdline").read_bytes().startswith(b"ray::"):
            still[name] = pid
    processes = LocalProcesses(still, kill_timeout)
    processes.kill()
    processes.close()


class RemoteProcesses:
    """Actors on other machines: Ray says which of them it has lost, and a task on each one's node ends it.

    Args:
        pids: process ids by the actors' names, in the order of their bundles.
        actors: handles by the actors' names.
        on_node: starts a function of this module in the place of a bundle: on_node(bundle, function, *arguments).
        timeouts: the study's [timeouts].
    """

    def __init__(
        self,
        pids: Mapping[str, int],
        actors: Mapping[str, Any],
        on_node: Callable[..., Any],
        timeouts: TimeoutsSection,
    ) -> None:
        self._pids, self._actors, self._on_node = dict(pids), dict(actors), on_node
        self._timeouts = timeouts
        self._lost: list[str] = []

    def ended(self, patience: float = 0.0) -> list[str]:
        """Return the names of those that Ray has lost; Ray is asked only where `patience` allows it."""
        for name, actor in self._actors.items() if patience and not self._lost else ():
            try:
                ray.get(actor.pid.remote(), timeout=self._timeouts.answer)
            except RayActorError:
                self._lost.append(name)
            except GetTimeoutError:
                continue  # busy or frozen: the server's time-out decides about silence
        return list(self._lost)

    def kill(self) -> None:
        """Kill all of them, each by a task on its node."""
        ending = [
            self._on_node(bundle, end_actor, name, pid, self._timeouts.kill)
            for bundle, (name, pid) in enumerate(self._pids.items())
        ]
        if ending:
            _, unheard = ray.wait(ending, num_returns=len(ending), timeout=self._timeouts.kill)
            for task in unheard:  # its node is gone, and the actors with it; the task must not run on another node
                ray.cancel(task, force=True)

    def close(self) -> None:
        """Stop watching."""
        self._actors = {}

    def pid(self, name: str) -> int:
        """Return the process id of an actor."""
        return self._pids[name]


class LocalProcesses:
    """Processes on this machine, by name; asking whether one has ended costs one system call.

    Args:
        pids: process ids by name.
        kill_timeout: seconds that `kill` waits for each to end.
    """

    def __init__(self, pids: Mapping[str, int], kill_timeout: float) -> None:
        self._pids, self._kill_timeout = dict(pids), kill_timeout
        self._descriptors: dict[str, int | None] = {}
        for name, pid in pids.items():
            try:
                self._descriptors[name] = os.pidfd_open(pid)
            except ProcessLookupError:
                self._descriptors[name] = None  # it has ended already

    def ended(self, patience: float = 0.0) -> list[str]:
        """Return the names of those that have ended, after waiting up to `patience` seconds for the first."""
        gone = [name for name, descriptor in self._descriptors.items() if descriptor is None]
        poller = select.poll()
        names = {descriptor: name for name, descriptor in self._descriptors.items() if descriptor is not None}
        for descriptor in names:
            poller.register(descriptor, select.POLLIN)
        return gone + [names[d] for d, _ in poller.poll(0 if gone else 1000 * patience)]

    def kill(self) -> None:
        """Kill all of them, frozen ones too, and wait until they have ended."""
        for descriptor in self._descriptors.values():
            if descriptor is not None:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        for descriptor in self._descriptors.values():
            if descriptor is not None:
                select.select([descriptor], [], [], self._kill_timeout)

    def close(self) -> None:
        """Stop watching."""
        for descriptor in self._descriptors.values():
            if descriptor is not None:
                os.close(descriptor)
        self._descriptors = {}

    def pid(self, name: str) -> int:
        """Return the process id of a process."""
        return self._pids[name]
