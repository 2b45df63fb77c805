"""The connection of this process to a Ray that runs already."""

from __future__ import annotations

import atexit
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import get_placement_group, placement_group_table, remove_placement_group

from penstock_server.engines.ray.ray_cluster import RayFailed, own_signal_handlers
from penstock_server.study import TimeoutsSection

NAMESPACE = "penstock"
"""Ray namespace of all studies."""

LOOK_SECONDS = 3.0
"""Time between two checks of the cluster; each costs a connection."""


class RayConnection:
    """Connected to a running Ray from construction to `close`, with at most one place on it for this study.

    Args:
        address: "auto", "HOST:PORT" of its gcs_server, or "ray://HOST:PORT" of a Ray Client server.
        place: name of this study's placement group.
        timeouts: the study's [timeouts].
        log: told what the user should know.

    Raises:
        RayFailed: no Ray answers there.
    """

    def __init__(self, address: str, place: str, timeouts: TimeoutsSection, log: Callable[[str], None]) -> None:
        self._place, self._timeouts, self._log = place, timeouts, log
        self._looked, self._unreachable, self._died = 0.0, False, ""
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        # By default Ray ends this process when the cluster's gcs_server has been out of reach for a minute.
        os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "600")
        os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # a call that comes too late must not start a Ray
        try:
            _try_address(address, timeouts.connect)
            with own_signal_handlers():
                ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.CRITICAL)
        except Exception as error:
            raise RayFailed(
                f"--ray-address {address}: no Ray answers there that this one can join ({cause_of(error)}); expected "
                '"auto", "HOST:PORT" or "ray://HOST:PORT" of a cluster with the same versions of Python and Ray: see '
                "`ray status`, or leave --ray-address out"
            ) from error
        # A Ray Client server has no gcs_server that this process could reach.
        self._gcs: str = "" if address.startswith("ray://") else ray.get_runtime_context().gcs_address

    def died(self, nodes: Mapping[str, str]) -> str:
        """Check every few seconds whether the cluster can be reached, and still has the study's nodes.

        Without its gcs_server Ray ends this process after a minute.

        Args:
            nodes: their addresses, by Ray's names for them.

        Returns:
            What has died; "" while all is well.
        """
        now = time.monotonic()
        if self._gcs and not self._died and now - self._looked > LOOK_SECONDS:
            self._looked = now
            try:
                _try_address(self._gcs, self._timeouts.connect)
            except OSError as error:
                self._unreachable = True
                self._died = f"the Ray cluster's gcs_server at {self._gcs} ({error})"
            else:
                alive = {str(node["NodeID"]) for node in alive_nodes()}
                if lost := [address for id_, address in nodes.items() if id_ not in alive]:
                    self._died = f"the Ray node {', '.join(lost)}"
        return self._died

    def remove_place(self) -> None:
        """Give the study's place back, where it has one; Ray kills whatever runs there.

        Raises:
            RayFailed: it is still there after [timeouts] kill.
        """
        try:
            group = get_placement_group(self._place)
        except ValueError:
            return
        remove_placement_group(group)
        deadline = time.monotonic() + self._timeouts.kill
        while placement_group_table(group).get("state", "REMOVED") != "REMOVED":
            if time.monotonic() > deadline:
                raise RayFailed(
                    f"the Ray cluster has not removed the placement group {self._place!r} within "
                    f"{self._timeouts.kill:.0f} s"
                )
            time.sleep(0.1)

    def close(self) -> None:
        """Give the study's place back, and disconnect."""
        if not ray.is_initialized():
            return
        # Ray waits ten minutes for a gcs_server that has gone, and longer than that in its own shutdown.
        removing = threading.Thread(target=self._try_to_remove, name="penstock-leave-ray", daemon=True)
        self.died({})
        if not self._unreachable:
            removing.start()
            removing.join(self._timeouts.kill + self._timeouts.answer)
        if removing.is_alive():
            self._log(
                "the Ray cluster does not answer any more; it frees the study's place once it notices that this process "
                "is gone"
            )
            atexit.unregister(ray.shutdown)
            return
        with own_signal_handlers():
            ray.shutdown()

    def _try_to_remove(self) -> None:
        with suppress(RayError, RuntimeError):  # the cluster frees the place once it notices that we are gone
            self.remove_place()


def alive_nodes() -> list[dict[str, Any]]:
    """Return Ray's descriptions of the nodes that are alive."""
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or of its cause where Ray has wrapped it; its type if it has none."""
    lines = [line.strip() for line in str(getattr(error, "cause", None) or error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def cause_of(error: BaseException) -> str:
    """Return the first line of an error's text, followed by the error that its last traceback reports, if it has one."""
    first, lines = first_line(error), str(error).splitlines()
    begins = [
        number for number, line in enumerate(lines) if line.strip().startswith("Traceback (most recent call last)")
    ]
    if not begins:
        return first
    # The frames of a traceback are indented; the error follows them and is not.
    ends = [line.strip() for line in lines[begins[-1] + 1 :] if line[:1].strip()]
    return f"{first} {ends[0]}" if ends else first


def _try_address(address: str, timeout: float) -> None:
    """Fail soon where nothing listens at an address; Ray itself would try for ten minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host.strip("[]"), int(port)), timeout=timeout).close()
