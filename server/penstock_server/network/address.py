"""The address at which this machine's part of the server listens."""

from __future__ import annotations

import ipaddress
import socket

import psutil

from penstock_client.errors import PenstockError


def interface_of(host: str) -> str:
    """The name of the network interface that has this IPv4 address. Raises PenstockError where there is none."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(a.family == socket.AF_INET and a.address == host for a in addresses):
            return str(name)
    raise PenstockError(
        f'[server] host = "{host}": no network interface of {socket.gethostname()} has this address: trainer ranks cannot meet; '
        "set it to an address of the machine that they run on"
    )


def is_network(host: str) -> bool:
    """Whether `[server] host` names a network, such as 10.0.0.0/24, in which each machine of the server takes its own address."""
    return "/" in host


def own_address(host: str) -> str:
    """`[server] host` itself, or this machine's address in that network.

    Raises:
        PenstockError: this machine has no address there, or several.
    """
    if not is_network(host):
        return host
    network = ipaddress.IPv4Network(host)
    addresses = [
        str(a.address) for entries in psutil.net_if_addrs().values() for a in entries if a.family == socket.AF_INET
    ]
    found = sorted({a for a in addresses if ipaddress.IPv4Address(a) in network})
    if len(found) != 1:
        there = ", ".join(found if found else sorted(set(addresses))) or "none"
        raise PenstockError(
            f'[server] host = "{host}": {socket.gethostname()} has {"several addresses" if found else "no address"} in this network '
            f"({there}): expected one; name {'a narrower network' if found else 'one that all machines of the server are in'}"
        )
    return found[0]
