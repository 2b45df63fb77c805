"""The address by which other nodes reach this one."""

from __future__ import annotations

import ipaddress
import re
import socket
from contextlib import suppress

from penstock.slurm.commands import Slurm, SlurmError
from penstock.study import StudyError
from penstock_server.network import interface_addresses

SLURMCTLD_PORT = 6817  # nothing is sent to it


def node_address(slurm: Slurm, node: str, interface: str | None) -> str:
    """Find an IPv4 address of this machine that workers on other nodes can connect to.

    Args:
        slurm: runs Slurm's commands.
        node: this node's name in Slurm.
        interface: the network interface to take the address from; None to ask Slurm.

    Raises:
        StudyError: there is no such interface, or it has no address.
        SlurmError: Slurm cannot be asked, or knows no usable address.
    """
    if interface:
        return _interface_address(interface)
    registered = slurm.show("node", node).get("NodeAddr", node)
    address = _resolved(registered)
    if address and (address == registered or not ipaddress.ip_address(address).is_loopback):
        return address
    # A node's own name is often its loopback address in its own /etc/hosts.
    controller = slurm.show("config").get("SlurmctldHost[0]", "")
    match = re.fullmatch(r"([^()]+)(?:\((.+)\))?", controller)
    if match and (there := _resolved(match[2] or match[1])):
        with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((there, SLURMCTLD_PORT))  # chooses the address that packets would come from
            return str(probe.getsockname()[0])
    raise SlurmError(
        f"no address found for node {node} (NodeAddr {registered}, controller {controller or 'unknown'}): expected one "
        'that other nodes reach it by; give [server] interface = "ib0" in the profile'
    )


def _resolved(name: str) -> str:
    """The IPv4 address of a name; "" where it has none."""
    try:
        return str(socket.getaddrinfo(name, None, socket.AF_INET)[0][4][0])
    except OSError:
        return ""


def _interface_address(interface: str) -> str:
    addresses = {own.interface: own.address for own in reversed(interface_addresses())}  # the first of each
    if interface in addresses:
        return addresses[interface]
    raise StudyError(
        [
            f'[server] interface = "{interface}": no such network with an IPv4 address on this node; '
            f"there are {', '.join(reversed(addresses))}: correct it in the profile or leave it out"
        ]
    )
