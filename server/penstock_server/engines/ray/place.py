"""A study's place on a running Ray: the placement group of its coordinator and trainer ranks, and its nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from penstock_server.engines.ray.connection import alive_nodes, first_line
from penstock_server.engines.ray.nodes import Node, describe, fingerprint, machine
from penstock_server.engines.ray.ray_cluster import EngineError, RayFailed
from penstock_server.network import KEYS_FILE, is_network
from penstock_server.study import Study

MENTION_SECONDS = 3.0
"""Time after which the user is told that the study waits for a place."""


@dataclass(frozen=True)
class Request:
    """What a study asks a Ray cluster for.

    Attributes:
        address: of the cluster, as the user has given it.
        name: of the placement group.
        study: the study.
        directory: its run directory, absolute.
        threads: CPU threads of each trainer rank.
        actor_options: Ray options of every actor.
        log: told what the user should know.
    """

    address: str
    name: str
    study: Study
    directory: Path
    threads: int
    actor_options: Mapping[str, Any]
    log: Callable[[str], None]

    @property
    def spread(self) -> bool:
        """True where the server may run on several nodes."""
        return is_network(self.study.server.host)


@dataclass(frozen=True)
class Place:
    """A placement group that the cluster has given.

    Attributes:
        group: bundle 0 is for the coordinator, bundle n + 1 for trainer rank n.
        gpus_per_rank: 0 or 1.
        nodes: addresses of its nodes, by Ray's names for them.
        here: True where all of it is on this machine.
    """

    group: PlacementGroup
    gpus_per_rank: int
    nodes: Mapping[str, str]
    here: bool


def take_place(request: Request) -> Place:
    """Wait until the cluster gives the study a place, and check the nodes that it is on.

    Args:
        request: what is asked for.

    Raises:
        RayFailed: the cluster does not give it within [timeouts] start.
        EngineError: a node cannot do its part.
    """
    study, patience = request.study, request.study.timeouts.start
    ranks, device = study.training.ranks, study.training.device
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    wants_gpus = device.startswith("cuda") or (device == "auto" and resources.get("GPU", 0) >= ranks)
    of_rank = {"CPU": float(request.threads), **({"GPU": 1.0} if wants_gpus else {})}
    bundles = [{"CPU": 1.0, **_pin(request)}, *(dict(of_rank) for _ in range(ranks))]
    strategy = "PACK" if request.spread else "STRICT_PACK"
    group: PlacementGroup = placement_group(bundles, strategy=strategy, name=request.name)
    wanted = _shown({k: sum(b.get(k, 0.0) for b in bundles) for k in ("CPU", "GPU")})
    wanted += f" ({_shown(of_rank)} together for each rank)" if request.spread else " on one node"
    if not group.wait(min(MENTION_SECONDS, patience)):
        request.log(f"waiting up to {patience:.0f} s for the Ray cluster to give {wanted}")
        if not group.wait(patience):
            raise RayFailed(_lacking(request, wanted))
    places: dict[int, str] = placement_group_table(group)["bundles_to_node_id"]
    one_of = {id_: bundle for bundle, id_ in sorted(places.items(), reverse=True)}  # a bundle on each node
    nodes = dict(zip(one_of, _ask_nodes(request, group, list(one_of.values())), strict=True))
    for node in nodes.values():
        _check_node(request, node)
    return Place(
        group,
        int(wants_gpus),
        {id_: node.address for id_, node in nodes.items()},
        all(node.machine == machine() for node in nodes.values()),
    )


def call(
    group: PlacementGroup, actor_options: Mapping[str, Any], bundle: int, function: Callable[..., Any], *arguments: Any
) -> Any:
    """Begin to call a function of this package in the place of a bundle.

    Args:
        group: the placement group.
        actor_options: Ray options of every actor in it.
        bundle: index of the bundle.
        function: what to call.
        arguments: its arguments.

    Returns:
        Ray's reference to what it will return.
    """
    strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=bundle)
    options: dict[str, Any] = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": strategy, **actor_options}
    return ray.remote(function).options(**options).remote(*arguments)


def _pin(request: Request) -> dict[str, float]:
    """Return the resource by which Ray chooses the node that [server] host names, where Ray knows that address."""
    host = request.study.server.host
    addresses = {str(node["NodeManagerAddress"]) for node in alive_nodes()}
    if host.startswith("127.") and not request.address.startswith("ray://"):
        host = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return {f"node:{host}": 0.001} if host in addresses else {}


def _lacking(request: Request, wanted: str) -> str:
    """Say why there is no place."""
    pinned = f' (the one that [server] host = "{request.study.server.host}" names)' if _pin(request) else ""
    nodes = ", ".join(f"{n['NodeManagerAddress']} has {_shown(n['Resources'])}" for n in alive_nodes()) or "none"
    free = _shown(ray.available_resources())  # type: ignore[no-untyped-call]
    return (
        f"--ray-address {request.address}: the Ray cluster has not given {wanted}{pinned} within "
        f"{request.study.timeouts.start:.0f} s; its nodes: {nodes}; free in all: {free}. Wait until others are done, lower "
        "[training] threads or ranks, or give it a node that has them"
    )


def _ask_nodes(request: Request, group: PlacementGroup, bundles: list[int]) -> list[Node]:
    keys, host = str(request.directory / KEYS_FILE), request.study.server.host
    try:
        return ray.get(
            [call(group, request.actor_options, bundle, describe, keys, host) for bundle in bundles],
            timeout=request.study.timeouts.start,
        )
    except RayError as error:
        raise EngineError(
            f"--ray-address {request.address}: Penstock cannot run on a node that Ray has chosen ({first_line(error)}): "
            "expected the same Penstock and its extra `server` there as here"
        ) from error


def _check_node(request: Request, node: Node) -> None:
    """Raise EngineError where the server could not work on that node."""
    host, here = request.study.server.host, node.machine == machine()
    if not here and host.startswith("127."):
        raise EngineError(
            f'[server] host = "{host}": Ray runs the server on its node {node.address}, and that address can be reached '
            f'from that node only: expected an address of that node; set host = "{node.address}", and read '
            "docs/security.md"
        )
    if node.trouble and request.spread:
        raise EngineError(f"the Ray node {node.address} cannot listen: {node.trouble}")
    if node.trouble:
        raise EngineError(
            f'[server] host = "{host}": the Ray node {node.address} cannot listen there ({node.trouble}): expected one of '
            f'its own addresses; set host = "{node.address}"'
        )
    if node.keys != fingerprint(request.directory / KEYS_FILE):
        raise EngineError(
            f"{request.directory}: does not exist on the Ray node {node.address}, or is another folder, or another user's: "
            "expected a run directory that all nodes see and the same user everywhere; give --out on a shared file system"
        )
    if request.study.training.own_cores and not here:
        raise EngineError(
            f"[training] own_cores = true: the trainer ranks run on the Ray node {node.address}, whose cores are not this "
            "machine's; set own_cores = false"
        )


def _shown(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{resources[k]:g} {k}" for k in ("CPU", "GPU") if resources.get(k)) or "no CPU"
