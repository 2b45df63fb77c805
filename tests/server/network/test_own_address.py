"""Which address a machine of the server listens at."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest

from penstock_client.errors import PenstockError
from penstock_server.network import own_address


@pytest.fixture
def interfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with an address in each of two networks."""
    there = {
        name: [
            SimpleNamespace(family=socket.AF_INET6, address="fe80::1"),
            SimpleNamespace(family=socket.AF_INET, address=a, netmask="255.255.255.0"),
        ]
        for name, a in (("lo", "127.0.0.1"), ("eth0", "10.1.0.5"), ("ib0", "10.2.0.5"))
    }
    monkeypatch.setattr("psutil.net_if_addrs", lambda: there)


def test_an_address_is_taken_as_it_is() -> None:
    assert own_address("203.0.113.7") == "203.0.113.7"


@pytest.mark.parametrize(
    ("host", "own"), [("10.2.0.0/16", "10.2.0.5"), ("10.1.0.5/32", "10.1.0.5"), ("127.0.0.0/8", "127.0.0.1")]
)
def test_in_a_network_the_machine_has_its_own(host: str, own: str, interfaces: None) -> None:
    assert own_address(host) == own


@pytest.mark.parametrize(
    ("host", "said"),
    [
        (
            "198.51.100.0/24",
            r"has no address in this network \(10.1.0.5, 10.2.0.5, 127.0.0.1\): expected one; name one that all",
        ),
        (
            "10.0.0.0/8",
            r"has several addresses in this network \(10.1.0.5, 10.2.0.5\): expected one; name a narrower network",
        ),
    ],
)
def test_none_and_several_are_named(host: str, said: str, interfaces: None) -> None:
    with pytest.raises(PenstockError, match=said):
        own_address(host)
