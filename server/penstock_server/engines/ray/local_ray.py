"""A Ray of our own on this machine: its daemons are watched, and it is ended with everything it has started."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group

from penstock_server.engines.ray import leftovers
from penstock_server.engines.ray.lean_ray import without_unused_processes
from penstock_server.engines.ray.processes import LocalProcesses
from penstock_server.engines.ray.ray_cluster import EngineError, RayFailed, end_leftovers, own_signal_handlers
from penstock_server.engines.ray.ray_folder import NoFolder, make_ray_folder, temporary
from penstock_server.study import Study

OBJECT_STORE_BYTES = 80 * 2**20
"""Size of Ray's object store, the smallest it takes: no field ever goes through it."""

_TOO_SLOW = "timed out during startup"  # in the message of Ray's node.py
_log = logging.getLogger("penstock.ray")

DAEMONS = ("gcs_server", "raylet")
"""Processes of Ray without which no actor can be started or called."""


class GuardedFolder:
    """A Ray's temporary folder, with a guard process that removes it and ends its processes, however this process ends.

    Args:
        directory: the run directory, absolute.
        kill_timeout: seconds for the processes to end.

    Attributes:
        path: the folder; only this user may enter it.
        kill_timeout: as given.
    """

    def __init__(self, directory: Path, kill_timeout: float) -> None:
        self._directory, self.kill_timeout = directory, kill_timeout
        # Not in the run directory: its path must be short, because socket paths are limited to 107 characters.
        self.path = make_ray_folder()
        (self.path / leftovers.OWNER_FILE).write_text(str(directory))
        (directory / leftovers.RECORD_FILE).write_text(str(self.path))
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", leftovers.__file__, str(self.path), str(os.getpid()), str(kill_timeout)],
            stdin=subprocess.PIPE,
            cwd="/",
            start_new_session=True,
        )

    def end_writers(self) -> None:
        """Kill the processes of this Ray."""
        leftovers.end_writers(self.path, os.getpid(), self.kill_timeout)

    def close(self) -> None:
        """Have the guard end what is left, and remove the folder."""
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._guard.wait(2 * self.kill_timeout)
        shutil.rmtree(self.path, ignore_errors=True)
        (self._directory / leftovers.RECORD_FILE).unlink(missing_ok=True)


def start_local_ray(study: Study, directory: Path, environment: Mapping[str, str]) -> LocalRay:
    """Start a Ray for one study, after ending what an earlier one has left of it.

    Args:
        study: the study.
        directory: its run directory, absolute.
        environment: variables of the actors, in addition to this process's.

    Raises:
        EngineError: a process of an earlier server of this run directory cannot be ended, or there is no folder for
            Ray's temporary files.
        RayFailed: Ray does not start.
    """
    end_leftovers(directory, study.timeouts.kill)
    try:
        return _start(study, directory, environment)
    except RayFailed as error:
        # On a busy machine, Ray's processes may need longer to start than Ray waits for them.
        if _TOO_SLOW not in str(error):
            raise
        _log.warning("%s; trying once more", error)
        return _start(study, directory, environment)


def _start(study: Study, directory: Path, environment: Mapping[str, str]) -> LocalRay:
    kill_timeout = study.timeouts.kill
    try:
        folder, daemons = GuardedFolder(directory, kill_timeout), LocalProcesses({}, kill_timeout)
    except NoFolder as error:
        raise EngineError(str(error)) from error
    try:
        with own_signal_handlers():
            _init(study, folder.path, environment)
        daemons = LocalProcesses({name: pid for pid, name in _children(os.getpid()) if name in DAEMONS}, kill_timeout)
        return LocalRay(folder, daemons, *_reserve(study))
    except Exception as error:
        _stop(folder, daemons)
        raise RayFailed(f"Ray does not start in {folder.path}: {type(error).__name__}: {error}") from error


class LocalRay:
    """A `RayCluster` that was started for one study; see `start_local_ray`.

    Args:
        folder: its temporary folder.
        daemons: its processes.
        group: the placement group for the coordinator and the trainer ranks.
        gpus_per_rank: 0 or 1.
    """

    def __init__(
        self, folder: GuardedFolder, daemons: LocalProcesses, group: PlacementGroup, gpus_per_rank: int
    ) -> None:
        self._folder, self._daemons = folder, daemons
        self.group: Any = group
        self.actor_options: dict[str, Any] = {}
        self.gpus_per_rank = gpus_per_rank

    def died(self) -> str:
        """Return which of Ray's daemons has died; "" while all is well."""
        return next((f"Ray's {name} (pid {self._daemons.pid(name)})" for name in self._daemons.ended()), "")

    def watch(self, pids: Mapping[str, int], _actors: Mapping[str, Any]) -> LocalProcesses:
        """Watch processes of actors by the kernel, which knows of a death within half a second; Ray takes longer."""
        return LocalProcesses(pids, self._folder.kill_timeout)

    def stop(self) -> None:
        """End this Ray with everything it has started, and remove its folder, whatever state it is in."""
        _stop(self._folder, self._daemons)


def _stop(folder: GuardedFolder, daemons: LocalProcesses) -> None:
    if daemons.ended():
        # Where the gcs_server is dead, Ray's own shutdown leaves its agents, and would end this process after a minute.
        folder.end_writers()
    with own_signal_handlers():
        ray.shutdown()
    daemons.close()
    folder.close()


def _init(study: Study, folder: Path, environment: Mapping[str, str]) -> None:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # By default Ray ends this process when its gcs_server has been dead for a minute, as it may be while actors start.
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "600")
    # By default (15) Ray's actors yield to every other process: solvers on the same core may starve the thread that
    # receives and, through the interpreter's lock, the one that trains.
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # a call that comes too late must not start another Ray
    # Inherited: a `runtime_env` would keep actors out of the processes that Ray has ready, a second of each start.
    with _in_the_environment(environment), without_unused_processes():
        ray.init(
            address="local",
            num_cpus=study.training.ranks + 1,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.CRITICAL,  # the engine reports what dies
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=str(temporary(folder)),  # Ray makes it writable for everyone; its parent is closed
        )


def _reserve(study: Study) -> tuple[PlacementGroup, int]:
    """Make the placement group of the coordinator and the ranks; return it with the number of GPUs of a rank."""
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    ranks = study.training.ranks
    gpus_per_rank = int(study.training.device != "cpu" and resources.get("GPU", 0) >= ranks)
    bundle = {"CPU": 1.0, "GPU": 1.0} if gpus_per_rank else {"CPU": 1.0}
    group: PlacementGroup = placement_group([{"CPU": 1.0}, *(dict(bundle) for _ in range(ranks))])
    if not group.wait(int(study.timeouts.start)):  # unlike `ready`, a task that has Ray start a process
        raise TimeoutError(f"no room for {1 + ranks} actors after {study.timeouts.start:g} s; it has {resources}")
    return group, gpus_per_rank


@contextmanager
def _in_the_environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _children(parent: int) -> Iterator[tuple[int, str]]:
    """Find (pid, name) of a process's children, in /proc/PID/stat (proc(5))."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):
                before, _, after = (process / "stat").read_text().rpartition(")")
                if int(after.split()[1]) == parent:
                    yield int(process.name), before.partition("(")[2]
