"""A Ray that runs already, here or on other machines: one study takes a place on it and gives it back afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray.exceptions import RayError

from penstock_server.engines.ray.connection import RayConnection, first_line
from penstock_server.engines.ray.place import Place, Request, call, take_place
from penstock_server.engines.ray.processes import ActorProcesses, LocalProcesses, RemoteProcesses
from penstock_server.engines.ray.ray_cluster import RayFailed, end_leftovers
from penstock_server.study import Study


def join_ray(
    address: str,
    study: Study,
    directory: Path,
    environment: Mapping[str, str],
    *,
    threads: int,
    log: Callable[[str], None] = lambda _line: None,
) -> JoinedRay:
    """Connect to a Ray, end what an earlier server of the run directory has left there, and take a place.

    Where [server] host is an address, coordinator and trainer ranks go to one node: the one with that address, or this
    machine where it is a loopback address. Where it is a network, they go to as few nodes as have room for them.

    Args:
        address: "auto", "HOST:PORT" of its gcs_server, or "ray://HOST:PORT" of a Ray Client server.
        study: the study.
        directory: its run directory, absolute, which all nodes of the place must see.
        environment: variables of the actors, in addition to the cluster's own.
        threads: CPU threads of each trainer rank; a core is asked for each.
        log: told what the user should know.

    Raises:
        RayFailed: the cluster cannot be reached, or gives no place; another attempt may succeed.
        EngineError: a node cannot do its part, or something of an earlier server cannot be ended.
    """
    end_leftovers(directory, study.timeouts.kill)
    name = f"{study.study.name} in {directory}"
    # What can be imported here, the study's own modules too, can then be imported there.
    variables = {**environment, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    # With each actor: a Ray Client server of Ray 2.60 cannot set up the job's own where its agent's port was left to
    # chance.
    actor_options: dict[str, Any] = {"runtime_env": {"env_vars": variables}}
    connection = RayConnection(address, name, study.timeouts, log)
    try:
        connection.remove_place()
        place = take_place(Request(address, name, study, directory, threads, actor_options, log))
    except RayError as error:
        connection.close()
        raise RayFailed(f"--ray-address {address}: the Ray cluster fails: {first_line(error)}") from error
    except BaseException:
        connection.close()
        raise
    return JoinedRay(study, connection, place, actor_options)


class JoinedRay:
    """A `RayCluster` that is shared with others and was started by somebody else; see `join_ray`.

    Args:
        study: the study.
        connection: to the cluster.
        place: that the cluster has given.
        actor_options: Ray options of every actor.
    """

    def __init__(self, study: Study, connection: RayConnection, place: Place, actor_options: dict[str, Any]) -> None:
        self._timeouts, self._connection, self._place = study.timeouts, connection, place
        self.group: Any = place.group
        self.actor_options = actor_options
        self.gpus_per_rank = place.gpus_per_rank

    def died(self) -> str:
        """Return what has died of the cluster; "" while all is well."""
        return self._connection.died(self._place.nodes)

    def watch(self, pids: Mapping[str, int], actors: Mapping[str, Any]) -> ActorProcesses:
        """Watch processes of actors: on this machine by the kernel, elsewhere by asking Ray."""
        if self._place.here:
            return LocalProcesses(pids, self._timeouts.kill)
        return RemoteProcesses(pids, actors, self._call, self._timeouts)

    def stop(self) -> None:
        """Give the place back, with whatever runs there, and disconnect."""
        self._connection.close()

    def _call(self, bundle: int, function: Callable[..., Any], *arguments: Any) -> Any:
        return call(self._place.group, self.actor_options, bundle, function, *arguments)
