"""The IPv4 addresses of this machine, and the one at which its part of the server listens."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

import psutil

from penstock_client.errors import PenstockError


@dataclass(frozen=True)
class InterfaceAddress:
    """An IPv4 address of this machine.

    Attributes:
        interface: name of the network interface, such as "ib0".
        address: such as "10.0.0.7".
        network: that the interface reaches, such as "10.0.0.0/24".
    """

    interface: str
    address: str
    network: ipaddress.IPv4Network


def interface_addresses() -> list[InterfaceAddress]:
    """List the IPv4 addresses of this machine, in the order of its interfaces."""
    return [
        InterfaceAddress(str(name), str(entry.address), _network(str(entry.address), entry.netmask))
        for name, entries in psutil.net_if_addrs().items()
        for entry in entries
        if entry.family == socket.AF_INET
    ]


def _network(address: str, netmask: str | None) -> ipaddress.IPv4Network:
    return ipaddress.IPv4Network(f"{address}/{netmask or 32}", strict=False)


def interface_of(host: str) -> str:
    """Find the network interface that has an IPv4 address.

    Raises:
        PenstockError: no interface of this machine has it.
    """
    for own in interface_addresses():
        if own.address == host:
            return own.interface
    raise PenstockError(
        f'[server] host = "{host}": no network interface of {socket.gethostname()} has this address: trainer ranks '
        "cannot meet; set it to an address of the machine that they run on"
    )


def is_network(host: str) -> bool:
    """Whether [server] host is a network, such as 10.0.0.0/24, in which each machine uses its own address."""
    return "/" in host


def own_address(host: str) -> str:
    """Find the address at which this machine listens.

    Args:
        host: [server] host of the study: an address, or a network.

    Returns:
        The address itself, or this machine's address in the network.

    Raises:
        PenstockError: this machine has no address in the network, or several.
    """
    if not is_network(host):
        return host
    network = ipaddress.IPv4Network(host)
    addresses = {own.address for own in interface_addresses()}
    found = sorted(a for a in addresses if ipaddress.IPv4Address(a) in network)
    if len(found) != 1:
        there = ", ".join(found or sorted(addresses)) or "none"
        raise PenstockError(
            f'[server] host = "{host}": {socket.gethostname()} has {"several addresses" if found else "no address"} in '
            f"this network ({there}): expected one; "
            f"name {'a narrower network' if found else 'one that all machines of the server are in'}"
        )
    return found[0]
