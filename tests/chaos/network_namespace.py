"""A second host on this machine: a network namespace behind a virtual cable that can be pulled. Needs root and iproute2."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import psutil


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


class Cable:
    """Between this host, at `here`, and the namespace's, at `there`."""

    def __init__(self, name: str, network: str) -> None:
        self.name, self.network = name, f"{network}.0/24"
        self.here, self.there = f"{network}.1", f"{network}.2"
        self._end = f"{name}-h"

    def cut(self) -> None:
        """Nothing gets through any more; connections stay open on both sides, as when a cable is pulled."""
        _ip("link", "set", self._end, "down")

    def mend(self) -> None:
        _ip("link", "set", self._end, "up")

    def command(self, *arguments: str) -> list[str]:
        """A command, run on the other host."""
        return ["ip", "netns", "exec", self.name, *arguments]


def _free_network() -> str:
    """The first three numbers of a network that no interface of this host is in; others may run tests of two hosts meanwhile."""
    taken = {address.address for addresses in psutil.net_if_addrs().values() for address in addresses}
    networks = (f"10.213.{(os.getpid() + number) % 250}" for number in range(250))
    return next(network for network in networks if f"{network}.1" not in taken)


@contextmanager
def other_host() -> Iterator[Cable]:
    """A namespace of its own for the time of the context; what still runs in it then loses its network."""
    cable = Cable(f"pk{os.getpid()}", _free_network())
    far = f"{cable.name}-n"
    _ip("netns", "add", cable.name)
    try:
        _ip("link", "add", f"{cable.name}-h", "type", "veth", "peer", "name", far, "netns", cable.name)
        _ip("address", "add", f"{cable.here}/24", "dev", f"{cable.name}-h")
        _ip("link", "set", f"{cable.name}-h", "up")
        _ip("-netns", cable.name, "address", "add", f"{cable.there}/24", "dev", far)
        _ip("-netns", cable.name, "link", "set", far, "up")
        _ip("-netns", cable.name, "link", "set", "lo", "up")
        yield cable
    finally:
        # Sockets of killed processes can keep the namespace and its cable for a while, so the cable is removed here.
        subprocess.run(["ip", "link", "del", f"{cable.name}-h"], check=False, capture_output=True)
        _ip("netns", "del", cable.name)
