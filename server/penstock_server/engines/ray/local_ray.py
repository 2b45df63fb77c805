"""A Ray of our own on this machine: its daemons watched, and ended with everything they have started."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group

from penstock_server.engines.ray import leftovers
from penstock_server.engines.ray.cluster import START_TIMEOUT, RayFailed, end_leftovers, own_signal_handlers
from penstock_server.engines.ray.processes import Watched
from penstock_server.study import Study

OBJECT_STORE_BYTES = 80 * 2**20  # Ray's smallest: no field ever goes through it
GUARD_PATIENCE = 2 * leftovers.PATIENCE
DAEMONS = ("gcs_server", "raylet")  # without which no actor can be started or called


class LocalRay:
    """A `Cluster` that is started for one study, with a bundle of resources for its coordinator and one for each trainer rank.

    Args:
        directory: the run directory, absolute. environment: of the actors, laid over this process's.
    """

    def __init__(self, study: Study, directory: Path, environment: Mapping[str, str]) -> None:
        self._study, self._directory, self._environment = study, directory, dict(environment)
        self.actor_options: dict[str, Any] = {}
        self._daemons = Watched({})

    def start(self) -> None:
        """Start it in a temporary folder, with a guard; first end what an earlier one has left of this study.

        Raises:
            EngineError: something of an earlier server of this run directory runs on and cannot be ended.
            RayFailed: Ray does not start.
        """
        end_leftovers(self._directory)
        # A folder of our own: short, because socket paths are limited to 107 characters.
        self._folder = Path(tempfile.mkdtemp(prefix=leftovers.PREFIX))
        (self._folder / leftovers.OWNER_FILE).write_text(str(self._directory))
        (self._directory / leftovers.RECORD_FILE).write_text(str(self._folder))
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", leftovers.__file__, str(self._folder), str(os.getpid())],
            stdin=subprocess.PIPE,
            cwd="/",
            start_new_session=True,
        )
        try:
            with own_signal_handlers():
                self._init()
        except Exception as error:
            self.stop()
            raise RayFailed(f"Ray does not start: {type(error).__name__}: {error}") from error

    def died(self) -> str:
        """What has died of Ray itself; "" while all is well."""
        return next((f"Ray's {name} (pid {self._daemons.pid(name)})" for name in self._daemons.ended()), "")

    def watch(self, pids: Mapping[str, int], _actors: Mapping[str, Any]) -> Watched:
        """The kernel knows of a death within half a second; Ray takes longer."""
        return Watched(pids)

    def stop(self) -> None:
        """End it with everything it has started, and remove its folder; whatever state it is in."""
        if self._daemons.ended():
            # Where the gcs_server is dead, Ray's own shutdown leaves its agents, and would end this process if it took a minute.
            leftovers.end_writers(self._folder, os.getpid())
        with own_signal_handlers():
            ray.shutdown()
        self._daemons.close()
        self._daemons = Watched({})
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._guard.wait(GUARD_PATIENCE)
        shutil.rmtree(self._folder, ignore_errors=True)
        (self._directory / leftovers.RECORD_FILE).unlink(missing_ok=True)

    def _init(self) -> None:
        study = self._study
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        # By default Ray ends this process when its gcs_server has been dead for a minute, as it may be while actors start.
        os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "600")
        # By default (15) Ray's actors yield to every other process: solvers on the same core may starve the thread that receives, and
        # with it, by the interpreter's lock, the one that trains.
        os.environ.setdefault("RAY_worker_niceness", "0")
        os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # a call that comes too late must not start another Ray
        # Inherited, for a `runtime_env` would keep actors out of the processes that Ray has ready for them, a second of each start.
        with _in_the_environment(self._environment):
            ray.init(
                address="local",
                num_cpus=study.training.ranks + 1,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.CRITICAL,  # what dies is ours to report
                object_store_memory=OBJECT_STORE_BYTES,
                _temp_dir=str(self._folder),
            )
        self._daemons = Watched({name: pid for pid, name in _children(os.getpid()) if name in DAEMONS})
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        ranks = study.training.ranks
        self.gpus_per_rank = int(study.training.device != "cpu" and resources.get("GPU", 0) >= ranks)
        bundle = {"CPU": 1.0, "GPU": 1.0} if self.gpus_per_rank else {"CPU": 1.0}
        group: PlacementGroup = placement_group([{"CPU": 1.0}, *(dict(bundle) for _ in range(ranks))])
        if not group.wait(int(START_TIMEOUT)):  # unlike `ready`, a task that has Ray start a process
            raise TimeoutError(f"no room for {1 + ranks} actors after {START_TIMEOUT:g} s; it has {resources}")
        self.group: Any = group


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
    """(pid, name) of a process's children, from /proc/PID/stat (proc(5))."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):
                before, _, after = (process / "stat").read_text().rpartition(")")
                if int(after.split()[1]) == parent:
                    yield int(process.name), before.partition("(")[2]
