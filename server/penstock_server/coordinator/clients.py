"""The clients that a coordinator knows, by the id in their HELLO and by their control connection.

A connection may break and be made again at any time, and a request or its answer may be lost with it. So each client
numbers its requests and repeats one that is not answered; the latest answer is kept here, and a repetition gets it
again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TypeVar

from penstock_client.errors import Refused, WireError
from penstock_client.payloads import Hello
from penstock_client.reasons import Reason

K = TypeVar("K")
REMEMBERED = 10_000  # given-up clients whose messages are still refused as such; 16 bytes each


@dataclass(slots=True, eq=False)
class KnownClient:
    """One client process.

    Attributes:
        id: 16 bytes of the client's own choice.
        pid: its process id.
        host: its machine.
        worker: name of the key with which it is connected.
        peer: routing id of its control connection.
        heard: when its last message came, seconds.
        number: of its latest request.
        answer: frames of the answer to that; None while there is none.
        holds: id of the simulation that it serves, or None.
        serves: simulation and attempt that it was assigned last and has not reported the end of, or None.
        reported: when it said HELLO or last reported the end of a simulation, seconds.
        mismatch_since: when its heartbeats began to name a different simulation than it holds, or None.
        may_leave: True when its silence loses nothing: it was told that there is nothing more to do, or runs one
            simulation only.
    """

    id: bytes
    pid: int
    host: str
    worker: str
    peer: bytes
    heard: float
    reported: float
    number: int = 0
    answer: list[bytes] | None = None
    holds: int | None = None
    serves: tuple[int, int] | None = None
    mismatch_since: float | None = None
    may_leave: bool = True

    def __str__(self) -> str:
        return f"client {self.host}:{self.pid}"

    def check_serves(self, simulation: int, attempt: int) -> None:
        """Check that the client was assigned an attempt and has not reported its end.

        Raises:
            Refused: it was not.
        """
        if self.serves != (simulation, attempt):
            raise Refused(
                Reason.UNKNOWN_SIMULATION,
                f"attempt {attempt} of simulation {simulation} is not assigned to this client: ask for it with NEXT",
            )

    def register_request(self, number: int) -> bool:
        """Note the number of a request; return False when it repeats the latest one.

        Args:
            number: of the request.

        Raises:
            WireError: the number is smaller than that of the latest request.
        """
        if number < self.number or number < 1:
            raise WireError(
                f"request number {number} after {self.number}: expected each request's to be one higher, from 1"
            )
        new = number > self.number
        if new:
            self.number, self.answer = number, None
        return new

    def note_heartbeat(self, *, matches: bool, now: float) -> None:
        """Note whether a heartbeat names the simulation that the client holds."""
        if matches:
            self.mismatch_since = None
        elif self.mismatch_since is None:
            self.mismatch_since = now


class KnownClients:
    """All clients from their HELLO until they are lost."""

    def __init__(self) -> None:
        self._clients: dict[bytes, KnownClient] = {}
        self._peers: dict[bytes, KnownClient] = {}  # by control connection
        self._given_up: dict[bytes, None] = {}  # ids, the oldest first
        # Host, process id and key of given-up clients that may still run.
        self._stuck: dict[tuple[str, int, str], None] = {}

    def __iter__(self) -> Iterator[KnownClient]:
        return iter(tuple(self._clients.values()))

    def hello(self, peer: bytes, hello: Hello, now: float, worker: str) -> tuple[KnownClient, bool]:
        """Register a client, or the new connection of a known one, which keeps what it holds.

        Args:
            peer: routing id of the connection over which HELLO came.
            hello: its payload.
            now: seconds on the coordinator's clock.
            worker: name of the key of that connection.

        Returns:
            The client, and whether it is new.

        Raises:
            Refused: the client was given up; another one may hold its simulation by now. Or another key has its id.
        """
        self._refuse_given_up(hello.client)
        client = self._clients.get(hello.client)
        new = client is None
        if client is None:
            client = KnownClient(hello.client, hello.pid, hello.host, worker, peer, heard=now, reported=now)
            self._clients[hello.client] = client
            self._stuck.pop((hello.host, hello.pid, worker), None)
        elif client.worker != worker:
            raise Refused(Reason.MALFORMED, "a client of another key has this id: choose 16 random bytes")
        self._peers.pop(client.peer, None)
        self._peers[peer] = client
        client.peer, client.heard = peer, now
        return client, new

    def by_connection(self, peer: bytes) -> KnownClient | None:
        """Return the client whose control connection has this routing id, if any."""
        return self._peers.get(peer)

    def get(self, client_id: bytes) -> KnownClient | None:
        """Return the client with this id, if any."""
        return self._clients.get(client_id)

    def sender_of_request(self, peer: bytes, now: float) -> KnownClient:
        """Return the client that sent a request and note that it was heard.

        Args:
            peer: routing id of the connection over which the request came.
            now: seconds on the coordinator's clock.

        Raises:
            Refused: no client has said HELLO over this connection.
        """
        client = self._peers.get(peer)
        if client is None:
            raise Refused(
                Reason.NO_HELLO, "a request over a connection that has not said HELLO: say HELLO and repeat it"
            )
        client.heard = now
        return client

    def sender_of_heartbeat(self, client_id: bytes, now: float, worker: str) -> KnownClient:
        """Return the client that sent a heartbeat, which names it, and note that it was heard.

        Args:
            client_id: the id in the heartbeat.
            now: seconds on the coordinator's clock.
            worker: name of the key of the connection.

        Raises:
            Refused: no client of this key has this id, or it was given up.
        """
        self._refuse_given_up(client_id)
        client = self._clients.get(client_id)
        if client is None or client.worker != worker:
            raise Refused(
                Reason.NO_HELLO, "a heartbeat of a client that has not said HELLO: say HELLO before sending heartbeats"
            )
        client.heard = now
        return client

    def remove(self, client: KnownClient, *, given_up: bool) -> None:
        """Forget a client.

        Args:
            client: which one.
            given_up: its process may still run; further messages of it are refused.
        """
        del self._clients[client.id]
        self._peers.pop(client.peer, None)
        if not given_up:
            return
        _remember(self._given_up, client.id)
        _remember(self._stuck, (client.host, client.pid, client.worker))

    def find_lost(self, now: float, timeout: float) -> dict[KnownClient, str]:
        """Find the clients to give up; forget those that may leave and have fallen silent.

        Args:
            now: seconds on the coordinator's clock.
            timeout: seconds of silence, or of naming a different simulation than it holds, after which a client is
                lost.

        Returns:
            Why each of them is lost.
        """
        lost: dict[KnownClient, str] = {}
        for client in self:
            if now - client.heard > timeout:
                if client.may_leave and client.holds is None:
                    self.remove(client, given_up=False)
                else:
                    lost[client] = f"no heartbeat for {timeout:.0f} s"
            elif client.mismatch_since is not None and now - client.mismatch_since > timeout:
                held = "none" if client.holds is None else f"simulation {client.holds}"
                lost[client] = (
                    f"its heartbeats have named a different simulation than it holds ({held}) for {timeout:.0f} s"
                )
        return lost

    def delay(self, seconds: float) -> None:
        """Shift all deadlines: for so long this process itself was suspended."""
        for client in self:
            client.heard += seconds
            if client.mismatch_since is not None:
                client.mismatch_since += seconds

    def process_ended(self, host: str, pid: int) -> list[KnownClient]:
        """Note that a process has ended and return its clients."""
        for stuck in [stuck for stuck in self._stuck if stuck[:2] == (host, pid)]:
            del self._stuck[stuck]
        return [client for client in self if (client.host, client.pid) == (host, pid)]

    def of_workers(self, workers: Collection[str]) -> list[KnownClient]:
        """Return the clients that are connected with one of these keys."""
        return [client for client in self if client.worker in workers]

    def stuck(self) -> tuple[tuple[str, int, str], ...]:
        """Return host, process id and key of given-up clients whose processes have not been seen to end."""
        return tuple(self._stuck)

    def _refuse_given_up(self, client_id: bytes) -> None:
        if client_id in self._given_up:
            raise Refused(
                Reason.GIVEN_UP,
                "the server has given this client up after too long a silence, and another client may hold its "
                "simulation: connect again",
            )


def _remember(memory: dict[K, None], key: K) -> None:
    """Keep a key, and forget the oldest when there are more than REMEMBERED."""
    memory[key] = None
    while len(memory) > REMEMBERED:
        del memory[next(iter(memory))]
