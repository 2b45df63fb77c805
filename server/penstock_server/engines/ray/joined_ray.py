"""A Ray that runs already, here or on other machines: a place on it for one study, given back afterwards; Ray itself is let alone."""

from __future__ import annotations

import atexit
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import (
    PlacementGroup,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from penstock_server.engines.ray.cluster import (
    START_TIMEOUT,
    EngineError,
    RayFailed,
    end_leftovers,
    own_signal_handlers,
)
from penstock_server.engines.ray.nodes import Node, describe, fingerprint, machine
from penstock_server.engines.ray.processes import ANSWER_SECONDS, Processes, RemoteProcesses, Watched
from penstock_server.network import KEYS_FILE, is_network
from penstock_server.study import Study

NAMESPACE = "penstock"
REMOVAL_SECONDS = 20.0
KNOCK_SECONDS = 10.0
LOOK_SECONDS = 3.0
SOON = 3.0  # seconds after which the wait for a place is worth a word


class JoinedRay:
    """A `Cluster` on a Ray that somebody else has started and will end.

    Where [server] host is an address, coordinator and trainer ranks go to one node: to that which has it, to this machine where it is a
    loopback address. Where it is a network, they go to as few nodes as have room for them.

    Args:
        address: "auto", "HOST:PORT" of its GCS, or "ray://HOST:PORT" of a Ray Client server.
        directory: the run directory, absolute, which that node must see. environment: of the actors, laid over the cluster's own.
        threads: of each trainer rank, for each of which a core is asked for. log: told what the user should know.
        patience: seconds that the cluster has to give what the study asks for.
    """

    def __init__(
        self,
        address: str,
        study: Study,
        directory: Path,
        environment: Mapping[str, str],
        *,
        threads: int,
        log: Callable[[str], None] = lambda _line: None,
        patience: float = START_TIMEOUT,
    ) -> None:
        self._address, self._study, self._directory = address, study, directory
        # What is imported here, the study's own modules too, can be imported there.
        variables = {**environment, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        # With each actor: as the job's, a Ray Client server of Ray 2.60 cannot set it up where its agent's port was left to chance.
        self.actor_options = {"runtime_env": {"env_vars": variables}}
        self._threads, self._log, self._patience = threads, log, patience
        self._name = f"{study.study.name} in {directory}"
        self._spread = is_network(study.server.host)
        self._here = True  # all of it
        self._nodes: dict[str, str] = {}  # that it runs on: their addresses by Ray's names for them
        self._gcs, self._looked, self._gone = "", 0.0, ""  # the gcs_server's address, where we have one
        self._died = ""

    def start(self) -> None:
        """Connect, end what an earlier server of this run directory has left, and take a place."""
        end_leftovers(self._directory)
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        # By default Ray ends this process when the cluster's gcs_server has been out of reach for a minute.
        os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "600")
        os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # a call that comes too late must not start a Ray
        try:
            _knock(self._address)
            with own_signal_handlers():
                ray.init(
                    address=self._address,
                    namespace=NAMESPACE,
                    log_to_driver=False,
                    logging_level=logging.CRITICAL,
                )
        except Exception as error:
            raise RayFailed(
                f'--ray-address {self._address}: no Ray answers there that this one can join ({_first_line(error)}); expected "auto", '
                '"HOST:PORT" or "ray://HOST:PORT" of a cluster with the same versions of Python and Ray: see `ray status`, or leave '
                "--ray-address out"
            ) from error
        self._gcs, self._gone, self._died, self._nodes = "", "", "", {}
        try:
            if not self._address.startswith("ray://"):
                self._gcs = ray.get_runtime_context().gcs_address
            self._remove(self._name)
            self._take_place()
        except RayError as error:
            self.stop()
            raise RayFailed(f"--ray-address {self._address}: the Ray cluster fails: {_first_line(error)}") from error
        except BaseException:
            self.stop()
            raise

    def died(self) -> str:
        """Whether its gcs_server can still be reached, and has not lost a node of ours, looked at every few seconds.

        Without its gcs_server Ray ends this process after a minute.
        """
        now = time.monotonic()
        if self._gcs and not self._died and now - self._looked > LOOK_SECONDS:
            self._looked = now
            try:
                _knock(self._gcs)
            except OSError as error:
                self._died = self._gone = f"the Ray cluster's gcs_server at {self._gcs} ({error})"
            else:
                alive = {str(node["NodeID"]) for node in _nodes()}
                if lost := [address for id_, address in self._nodes.items() if id_ not in alive]:
                    self._died = f"the Ray node {', '.join(lost)}"
        return self._died

    def watch(self, pids: Mapping[str, int], actors: Mapping[str, Any]) -> Processes:
        """On this machine the kernel knows best; elsewhere Ray must be asked."""
        return Watched(pids) if self._here else RemoteProcesses(pids, actors, self._call)

    def stop(self) -> None:
        """Give the place back, with whatever runs there, and disconnect."""
        if not ray.is_initialized():
            return
        # Ray waits ten minutes for a gcs_server that has gone, and longer than that in its own shutdown.
        removing = threading.Thread(target=self._try_to_remove, name="penstock-leave-ray", daemon=True)
        self.died()
        if not self._gone:
            removing.start()
            removing.join(REMOVAL_SECONDS + ANSWER_SECONDS)
        if removing.is_alive():
            self._log(
                "the Ray cluster does not answer any more: whatever is left of it gives the place back once it misses this process"
            )
            atexit.unregister(ray.shutdown)
            return
        with own_signal_handlers():
            ray.shutdown()

    def _try_to_remove(self) -> None:
        with suppress(RayError, RuntimeError):  # the cluster gives it back by itself once it misses us
            self._remove(self._name)

    def _take_place(self) -> None:
        study = self._study
        ranks, device = study.training.ranks, study.training.device
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        wants_gpus = device.startswith("cuda") or (device == "auto" and resources.get("GPU", 0) >= ranks)
        self.gpus_per_rank = int(wants_gpus)
        of_rank = {"CPU": float(self._threads), **({"GPU": 1.0} if wants_gpus else {})}
        bundles = [{"CPU": 1.0, **self._pin()}, *(dict(of_rank) for _ in range(ranks))]
        strategy = "PACK" if self._spread else "STRICT_PACK"
        group: PlacementGroup = placement_group(bundles, strategy=strategy, name=self._name)
        self.group: Any = group
        wanted = _shown({k: sum(b.get(k, 0.0) for b in bundles) for k in ("CPU", "GPU")})
        wanted += f" ({_shown(of_rank)} together for each rank)" if self._spread else " on one node"
        if not group.wait(min(SOON, self._patience)):
            self._log(f"waiting up to {self._patience:.0f} s for the Ray cluster to give {wanted}")
            if not group.wait(self._patience):
                raise RayFailed(self._lacking(wanted))
        places: dict[int, str] = placement_group_table(group)["bundles_to_node_id"]
        one_of = {id_: bundle for bundle, id_ in sorted(places.items(), reverse=True)}  # a bundle on each node
        nodes = dict(zip(one_of, self._ask_nodes(list(one_of.values())), strict=True))
        for node in nodes.values():
            self._check_node(node)
        self._nodes = {id_: node.address for id_, node in nodes.items()}
        self._here = all(node.machine == machine() for node in nodes.values())

    def _pin(self) -> dict[str, float]:
        """What makes Ray choose the node that [server] host names, where it knows one by that address."""
        host = self._study.server.host
        addresses = {str(node["NodeManagerAddress"]) for node in _nodes()}
        if host.startswith("127.") and not self._address.startswith("ray://"):
            host = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        return {f"node:{host}": 0.001} if host in addresses else {}

    def _lacking(self, wanted: str) -> str:
        """Why there is no place, for whoever can do something about it."""
        pinned = f' (the one that [server] host = "{self._study.server.host}" names)' if self._pin() else ""
        nodes = ", ".join(f"{n['NodeManagerAddress']} has {_shown(n['Resources'])}" for n in _nodes()) or "none"
        free = _shown(ray.available_resources())  # type: ignore[no-untyped-call]
        return (
            f"--ray-address {self._address}: the Ray cluster has not given {wanted}{pinned} within {self._patience:.0f} s; "
            f"its nodes: {nodes}; free in all: {free}. Wait until others are done, lower [training] threads or ranks, or give it a "
            "node that has them"
        )

    def _ask_nodes(self, bundles: list[int]) -> list[Node]:
        keys, host = str(self._directory / KEYS_FILE), self._study.server.host
        try:
            return ray.get([self._call(bundle, describe, keys, host) for bundle in bundles], timeout=START_TIMEOUT)
        except RayError as error:
            raise EngineError(
                f"--ray-address {self._address}: Penstock cannot run on a node that Ray has chosen ({_first_line(error)}): expected the "
                "same Penstock and its extra `server` there as here"
            ) from error

    def _check_node(self, node: Node) -> None:
        """Raises EngineError where the server could not do its work on that node."""
        host, here = self._study.server.host, node.machine == machine()
        if not here and host.startswith("127."):
            raise EngineError(
                f'[server] host = "{host}": Ray runs the server on its node {node.address}, and nobody reaches that address there but '
                f'itself: expected an address of that node; set host = "{node.address}", and read docs/security.md'
            )
        if node.trouble and self._spread:
            raise EngineError(f"the Ray node {node.address} cannot listen: {node.trouble}")
        if node.trouble:
            raise EngineError(
                f'[server] host = "{host}": the Ray node {node.address} cannot listen there ({node.trouble}): expected one of its own '
                f'addresses; set host = "{node.address}"'
            )
        if node.keys != fingerprint(self._directory / KEYS_FILE):
            raise EngineError(
                f"{self._directory}: is not there on the Ray node {node.address}, or is another folder, or another user's: expected a run "
                "directory that all nodes see and the same user everywhere; give --out on a shared file system"
            )
        if self._study.training.own_cores and not here:
            raise EngineError(
                f"[training] own_cores = true: the trainer ranks run on the Ray node {node.address}, whose cores are not this machine's; "
                "set own_cores = false"
            )

    def _call(self, bundle: int, function: Callable[..., Any], *arguments: Any) -> Any:
        """Begin to call a function of this package in the place of a bundle; returns Ray's reference to what it will return."""
        strategy = PlacementGroupSchedulingStrategy(self.group, placement_group_bundle_index=bundle)
        options: dict[str, Any] = {
            "num_cpus": 0,
            "max_retries": 0,
            "scheduling_strategy": strategy,
            **self.actor_options,
        }
        return ray.remote(function).options(**options).remote(*arguments)

    def _remove(self, name: str) -> None:
        """Give a place back: Ray kills whoever works there. Returns when it is done."""
        try:
            group = get_placement_group(name)
        except ValueError:
            return
        remove_placement_group(group)
        deadline = time.monotonic() + REMOVAL_SECONDS
        while placement_group_table(group).get("state", "REMOVED") != "REMOVED":
            if time.monotonic() > deadline:
                raise RayFailed(
                    f"the Ray cluster has not removed the placement group {name!r} within {REMOVAL_SECONDS:.0f} s"
                )
            time.sleep(0.1)


def _knock(address: str) -> None:
    """Ray looks ten minutes for a cluster that is not there; where the address says where it should be, that is soon known."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_SECONDS).close()


def _nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _shown(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{resources[k]:g} {k}" for k in ("CPU", "GPU") if resources.get(k)) or "no CPU"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(getattr(error, "cause", None) or error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
