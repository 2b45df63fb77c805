"""What the nodes of a running Ray are asked; `describe` runs on the node."""

from __future__ import annotations

import hashlib
import socket
from dataclasses import dataclass
from pathlib import Path

import ray

from penstock_client.errors import PenstockError
from penstock_server.network import own_address


@dataclass(frozen=True)
class Node:
    """What a node says of itself.

    Attributes:
        address: by which Ray knows it.
        machine: the same for all processes that reach each other on 127.0.0.1.
        keys: digest of the study's keys.json there.
        trouble: why no socket can listen on [server] host there; "" where one can.
    """

    address: str
    machine: str
    keys: str
    trouble: str


def describe(keys: str, host: str) -> Node:
    """Describe the node that this function runs on.

    Args:
        keys: path of the study's keys.json.
        host: [server] host.
    """
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
    """Return a name of this machine: its boot and its network namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {Path('/proc/self/ns/net').stat().st_ino}"


def fingerprint(path: Path) -> str:
    """Return a digest of a file, or why there is none."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        return error.strerror or str(error)
