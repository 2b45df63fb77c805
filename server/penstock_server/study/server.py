"""[server]: addresses, time-outs and limits of the server."""

from __future__ import annotations

import ipaddress

from pydantic import Field, field_validator, model_validator

from penstock_server.study.section import Bytes, Seconds, Section

LONGEST = 49 * 86400.0  # seconds; clients are told times in milliseconds, as 32 bits


class ServerSection(Section):
    """[server]: addresses, time-outs and limits of the server.

    Attributes:
        host: address that sockets bind and clients are told, such as "127.0.0.1"; or a network such as "10.0.0.0/24",
            in which each machine of the server uses its own address.
        max_message: bytes that a client may send in one message; a connection that sends more is closed before memory
            is allocated for it.
        shared_memory: whether clients on the same node may pass field values through shared memory.
        heartbeat: seconds between two heartbeats of a client.
        client_timeout: seconds of silence after which a client is given up.
        server_timeout: seconds of silence after which clients give up on the server.
        max_restarts: how often the server is restarted after one of its processes has died, before the study fails.
    """

    host: str = "127.0.0.1"
    max_message: Bytes = 2**28
    shared_memory: bool = True
    heartbeat: Seconds = 2.0
    client_timeout: Seconds = 60.0
    server_timeout: Seconds = 60.0
    max_restarts: int = Field(5, ge=0)

    @model_validator(mode="after")
    def _times(self) -> ServerSection:
        for name in ("client_timeout", "server_timeout"):
            if self.heartbeat >= (limit := getattr(self, name)):
                raise ValueError(
                    f"heartbeat = {self.heartbeat:g} s and {name} = {limit:g} s: expected a heartbeat well below "
                    f"{name}, such as a tenth, or every client would be taken for lost"
                )
        if self.server_timeout > LONGEST:
            raise ValueError(f"server_timeout = {self.server_timeout:g} s: expected at most {LONGEST:g} s (49 days)")
        return self

    @field_validator("host")
    @classmethod
    def _one_address(cls, host: str) -> str:
        try:
            network = ipaddress.IPv4Network(host)
        except ValueError:
            network = None
        if network is None or network.is_unspecified or network.is_multicast or network.prefixlen == 0:
            raise ValueError(
                "expected one IPv4 address of this machine, or the network that all machines of the server are in, "
                'such as "10.0.0.0/24": sockets bind it and clients are told it, so that neither a name nor '
                '"all addresses" will do'
            )
        return host
