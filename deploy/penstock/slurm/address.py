"""The address by which other nodes reach this one."""

from __future__ import annotations

import fcntl
import ipaddress
import re
import socket
import struct
from contextlib import suppress

from penstock.slurm.commands import Slurm, SlurmError
from penstock.study import StudyError

SIOCGIFADDR = 0x8915  # <linux/sockios.h>
SLURMCTLD_PORT = 6817  # nothing is sent to it


def node_address(slurm: Slurm, node: str, interface: str | None) -> str:
    """An IPv4 address of this machine that workers on other nodes can connect to.

    Args:
        node: this node's name, as Slurm has it. interface: the network to take it from, if the profile names one.

    Raises:
        StudyError: there is no such interface, or it has no address.
        SlurmError: Slurm cannot be asked.
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
        f"no address found for node {node} (NodeAddr {registered}, controller {controller or 'unknown'}): expected one that "
        'other nodes reach it by; give [server] interface = "ib0" in the profile'
    )


def _resolved(name: str) -> str:
    try:
        return str(socket.getaddrinfo(name, None, socket.AF_INET)[0][4][0])
    except OSError:
        return ""


def _interface_address(interface: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
        except OSError as error:
            there = ", ".join(name for _, name in socket.if_nameindex())
            raise StudyError(
                [
                    f'[server] interface = "{interface}": no such network with an IPv4 address on this node ({error.strerror}); '
                    f"there are {there}: correct it in the profile or leave it out"
                ]
            ) from error
    return socket.inet_ntoa(answer[20:24])
