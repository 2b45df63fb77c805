"""The clients that a coordinator knows, by the name in their HELLO and by their connection; who has fallen silent, who was given up.

A connection may break and be made anew at any time, and with it a request or its answer may be lost. So each client numbers its
requests and repeats one that is not answered: the latest answer is kept here, and a repetition gets it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from penstock_client.errors import Refused, WireError
from penstock_client.payloads import Hello
from penstock_client.reasons import Reason

K = TypeVar("K")
REMEMBERED = 10_000  # given-up clients that are still told so; 16 bytes each


@dataclass(slots=True, eq=False)
class KnownClient:
    """One client process.

    peer: its control connection. heard: when it last spoke. number, answer: of its latest request; no answer yet: None.
    holds: the simulation that it serves. adrift: since when its heartbeats have named another one, or none.
    may_leave: it has been told that there is nothing more to do, or was started for one simulation: that it falls silent is no loss.
    """

    id: bytes
    pid: int
    host: str
    peer: bytes
    heard: float
    number: int = 0
    answer: list[bytes] | None = None
    holds: int | None = None
    adrift: float | None = None
    may_leave: bool = True

    def __str__(self) -> str:
        return f"client {self.host}:{self.pid}"

    def asks_anew(self, number: int) -> bool:
        """Take note of a request; False when it repeats the latest one.

        Raises:
            WireError: it is older than that.
        """
        if number < self.number or number < 1:
            raise WireError(
                f"request number {number} after {self.number}: expected each request's to be one higher, from 1"
            )
        anew = number > self.number
        if anew:
            self.number, self.answer = number, None
        return anew


class KnownClients:
    """Every client from its HELLO until it is lost."""

    def __init__(self) -> None:
        self._clients: dict[bytes, KnownClient] = {}
        self._peers: dict[bytes, KnownClient] = {}  # by control connection
        self._given_up: dict[bytes, None] = {}  # in order
        self._stuck: dict[
            tuple[str, int], None
        ] = {}  # host and process id of given-up clients, as far as they may still run

    def __iter__(self) -> Iterator[KnownClient]:
        return iter(tuple(self._clients.values()))

    def hello(self, peer: bytes, hello: Hello, now: float) -> tuple[KnownClient, bool]:
        """A client, and whether it is new. One that is known keeps what it has, on another connection from now on.

        Raises:
            Refused: it was given up; what it held may be somebody else's by now.
        """
        self._refuse_given_up(hello.client)
        client = self._clients.get(hello.client)
        new = client is None
        if client is None:
            client = self._clients[hello.client] = KnownClient(hello.client, hello.pid, hello.host, peer, now)
            self._stuck.pop((hello.host, hello.pid), None)
        self._peers.pop(client.peer, None)
        self._peers[peer] = client
        client.peer, client.heard = peer, now
        return client, new

    def over(self, peer: bytes) -> KnownClient | None:
        """Whose control connection this is."""
        return self._peers.get(peer)

    def at(self, peer: bytes, now: float) -> KnownClient:
        """Who speaks over this control connection.

        Raises:
            Refused: it has not said HELLO.
        """
        client = self._peers.get(peer)
        if client is None:
            raise Refused(
                Reason.NO_HELLO, "a request over a connection that has not said HELLO: say HELLO and repeat it"
            )
        client.heard = now
        return client

    def named(self, client_id: bytes, now: float) -> KnownClient:
        """Whose heartbeat this is.

        Raises:
            Refused: nobody's, or that of a client that was given up.
        """
        self._refuse_given_up(client_id)
        client = self._clients.get(client_id)
        if client is None:
            raise Refused(Reason.NO_HELLO, "a heartbeat of a client that has not said HELLO")
        client.heard = now
        return client

    def get(self, client_id: bytes) -> KnownClient | None:
        return self._clients.get(client_id)

    def remove(self, client: KnownClient, *, given_up: bool) -> None:
        """Forget a client. given_up: its process may still run; it is refused if it speaks again."""
        del self._clients[client.id]
        self._peers.pop(client.peer, None)
        if not given_up:
            return
        _remember(self._given_up, client.id)
        _remember(self._stuck, (client.host, client.pid))

    def ended(self, host: str, pid: int) -> list[KnownClient]:
        """Those of a process that has ended."""
        self._stuck.pop((host, pid), None)
        return [client for client in self if (client.host, client.pid) == (host, pid)]

    def stuck(self) -> tuple[tuple[str, int], ...]:
        """Host and process id of given-up clients that have not been seen to end."""
        return tuple(self._stuck)

    def _refuse_given_up(self, client_id: bytes) -> None:
        if client_id in self._given_up:
            raise Refused(
                Reason.GIVEN_UP,
                "the server has given this client up after too long a silence, and what it held is somebody else's: "
                "connect anew",
            )


def _remember(memory: dict[K, None], key: K) -> None:
    """Keep a key, forgetting the oldest where there are too many."""
    memory[key] = None
    while len(memory) > REMEMBERED:
        del memory[next(iter(memory))]
