"""The coordinator's logic: which client serves which simulation, which clients are alive, and what has ended.

It has no sockets, no threads and no clock of its own. `Coordinator.handle` takes one message of one connection and
returns the messages to send; `Coordinator.tick` looks for silent clients. `penstock_server.network.RouterLoop` drives
both from a socket; the inline engine calls `handle` directly. What a message costs does not depend on how many
simulations the study has.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from penstock_client.errors import Refused, WireError
from penstock_client.payloads import Alive, Announce, Assign, Finish, Hello, Outcome, Welcome
from penstock_client.reasons import Reason
from penstock_client.wire import ANY_SIMULATION, Header, Kind, unpack
from penstock_server.coordinator.announcements import Announcements
from penstock_server.coordinator.clients import KnownClient, KnownClients
from penstock_server.coordinator.runs import Runs, checked_finish
from penstock_server.coordinator.simulations import Point, SimulationCounts, Simulations
from penstock_server.network import MAX_TEXT, Envelope, Message, refusal_of
from penstock_server.study import Schema, Study
from penstock_server.telemetry import ServerRun

MAX_REFUSAL_EVENTS = 1000  # lines of events.jsonl, which a client that repeats itself must not fill the disk with
SUSPENDED_SECONDS = 5.0  # without a message or a tick: this process itself was suspended, since ticks come every second


class Coordinator:
    """Hands out the plan's simulations and follows them to their end.

    One thread handles messages and ticks, the control thread. Other threads may read and call everything but `handle`
    and `tick`: a lock keeps them from seeing a message half done. Counts and flags are single values and are read
    without it.

    Args:
        plan: the simulations, by id.
        welcome: what every client is told.
        study: its [fields], [samples], [solver], [server] and [parameters].
        run: incarnation, events and metrics of this run of the server.
        on_schema: called once, when the fields' shapes are known, to make the trainer ranks ready. Returns True when
            they are; False when that has begun elsewhere, since it may take longer than clients wait for a heartbeat's
            answer: `configured` follows.
        schema: what a checkpoint has agreed on; None: to be agreed on with the first client.
        spares: points that take the place of training simulations which have used up their retries, one after the
            other, as simulations with new ids.

    Attributes:
        blocked_seconds: time that clients spent waiting for credit, as they report it.
    """

    def __init__(
        self,
        plan: Sequence[Point],
        welcome: Welcome,
        study: Study,
        run: ServerRun,
        *,
        on_schema: Callable[[Schema], bool],
        schema: Schema | None = None,
        spares: Sequence[Point] = (),
    ) -> None:
        self._welcome = welcome
        self._client_timeout, self._wall_time = study.server.client_timeout, study.solver.wall_time
        self._envelope, self._events = Envelope(run.incarnation, run.metrics.refused), run.events
        self._announcements = Announcements(study, welcome.parameters, run.events, on_schema, schema)
        self._simulations = Simulations(plan, spares, study.samples)
        self._clients = KnownClients()
        self._runs = Runs(self._simulations, self._clients, run.events, study.solver)
        self._waiting_requests: dict[bytes, Header] = {}  # NEXT without an answer yet, by client id, the oldest first
        self._now = 0.0
        self._refusals = 0
        self._lock = threading.RLock()
        self.blocked_seconds = 0.0

    @property
    def production_over(self) -> bool:
        """True when no time step will come any more."""
        return self._runs.stopping or self._simulations.all_ended

    @property
    def wanted_workers(self) -> int:
        """Number of simulations that wait or run; more workers than that have nothing to do."""
        return 0 if self._runs.stopping else self._simulations.wanted

    @property
    def has_waiting(self) -> bool:
        """True when there is a simulation to hand out now."""
        return self._simulations.any_waiting and not self._runs.stopping

    def counts(self) -> SimulationCounts:
        """Return the number of simulations in each state."""
        return self._simulations.counts()

    def given_up(self) -> tuple[tuple[str, int], ...]:
        """Return host and process id of given-up clients, which may be frozen and hold a worker's place."""
        return self._clients.stuck()

    def failures(self) -> dict[int, str]:
        """Return why each failed simulation failed."""
        with self._lock:
            return self._simulations.failures()

    def expected(self, arrived: Callable[[int], int]) -> int:
        """Return the number of training samples that the study must have; see `Simulations.expected`."""
        with self._lock:
            return self._simulations.expected(arrived)

    def state_dict(self) -> dict[str, Any]:
        """Return what a later incarnation must know, for a checkpoint."""
        with self._lock:
            return {**self._simulations.state_dict(), "static_arrived": self._announcements.state_dict()}

    def load_state_dict(
        self, state: Mapping[str, Any], arrived: Callable[[int], int], again: Sequence[int] = ()
    ) -> None:
        """Continue an earlier incarnation's work.

        A simulation that had finished stays so if all its samples had arrived by the checkpoint. One that was under way
        is handed out first, as a further attempt.

        Args:
            state: what `state_dict` returned.
            arrived: returns the number of a simulation's samples in the ledgers, or of a held-out one's time steps.
            again: simulations under way that continue where they were: handed out before all others, in this order and
                as the same attempt.
        """
        with self._lock:
            self._simulations.load_state_dict(state, arrived, again)
            self._announcements.load_state_dict(state["static_arrived"])

    def stop(self) -> list[Message]:
        """Hand out nothing more, and tell clients to abandon what they run.

        Returns:
            The messages to send.
        """
        with self._lock:
            self._runs.stopping = True
            return self._serve_waiting()

    def worker_exited(self, host: str, pid: int, message: str) -> list[Message]:
        """Note that a worker process has ended; its simulation is handed out again.

        Args:
            host: its machine.
            pid: its process id.
            message: how it ended.

        Returns:
            The messages to send.
        """
        with self._lock:
            text = message or "its worker process ended"
            self._runs.lose(dict.fromkeys(self._clients.process_ended(host, pid), text), given_up=False)
            return self._serve_waiting()

    def configured(self) -> list[Message]:
        """Note that the trainer ranks are ready for the fields; clients that have announced them may begin.

        Returns:
            The messages to send.
        """
        with self._lock:
            self._announcements.set_ready()
            return self._serve_announced()

    def static_arrived(self, name: str) -> None:
        """Note that a static field is complete; later clients need not send it."""
        with self._lock:
            self._announcements.add_static(name)

    def tick(self, now: float) -> list[Message]:
        """Give up clients that are silent or serve another simulation than they hold; fail runs that take too long.

        Args:
            now: seconds on the monotonic clock.

        Returns:
            The messages to send.
        """
        with self._lock:
            self._advance(now)
            self._runs.lose(self._clients.find_lost(now, self._client_timeout), given_up=True)
            self._runs.fail_overdue(now, self._wall_time)
            return self._serve_waiting()

    def handle(self, peer: bytes, frames: list[bytes], now: float = 0.0) -> list[Message]:
        """Deal with one message. Never raises for what a client sent.

        Args:
            peer: routing id of the connection it came over.
            frames: header and payload.
            now: seconds on the monotonic clock.

        Returns:
            The messages to send.
        """
        with self._lock:
            self._advance(now)
            return self._handle(peer, frames)

    def _handle(self, peer: bytes, frames: list[bytes]) -> list[Message]:
        header = Header(Kind.REFUSE)
        client: KnownClient | None = None
        try:
            if len(frames) != 2:
                raise WireError(f"control message of {len(frames)} frames, expected 2")
            header = unpack(frames[0])
            self._envelope.check(header)
            if header.kind is Kind.HELLO:
                return self._hello(peer, header, Hello.unpack(frames[1]))
            if header.kind is Kind.HEARTBEAT:
                return [(peer, self._heartbeat(header, frames[1]))]
            sender = self._clients.sender_of_request(peer, self._now)
            if not sender.register_request(header.request_number):
                return [] if sender.answer is None else [(peer, sender.answer)]
            client = sender
            return self._dispatch(client, header, frames[1])
        except (Refused, WireError) as error:
            refusal = self._refuse(header, *refusal_of(error))
        if client is not None:
            client.answer = refusal
        return [(peer, refusal)]

    def _advance(self, now: float) -> None:
        """Advance the clock. If this process itself was suspended, shift all deadlines by the gap."""
        gap = now - self._now
        self._now = now
        if gap >= SUSPENDED_SECONDS:
            self._clients.delay(gap)
            self._runs.delay(gap)

    def _hello(self, peer: bytes, header: Header, hello: Hello) -> list[Message]:
        earlier = self._clients.by_connection(peer)
        if earlier is not None and earlier.id != hello.client:
            self._runs.lose({earlier: "its connection now belongs to another client"}, given_up=False)
        client, new = self._clients.hello(peer, replace(hello, host=hello.host[:MAX_TEXT]), self._now)
        if new:
            self._events.write("client", pid=client.pid, host=client.host)
        return [(peer, self._envelope.answer(header, Kind.WELCOME, self._welcome.pack())), *self._serve_waiting()]

    def _dispatch(self, client: KnownClient, header: Header, payload: bytes) -> list[Message]:
        """Deal with a request that is not a repetition."""
        if header.kind is Kind.NEXT:
            return self._next(client, header)
        if header.kind is Kind.ANNOUNCE:
            self._runs.current(header)
            announce = Announce.unpack(payload)
            self._runs.check_open()
            self._announcements.add(client.id, header, announce)
            return self._serve_announced()
        if header.kind is Kind.FINISH:
            return self._finish(client, header, payload)
        raise WireError(
            f"{header.kind.name} was sent to the coordinator: expected HELLO, NEXT, ANNOUNCE, FINISH or HEARTBEAT there"
        )

    def _heartbeat(self, header: Header, payload: bytes) -> list[bytes]:
        client = self._clients.sender_of_heartbeat(payload, self._now)
        abandon, matches = False, client.holds is None
        if 0 <= header.simulation < len(self._simulations):
            simulation = self._simulations[header.simulation]
            outdated = simulation.attempt != header.attempt or simulation.state in ("waiting", "failed")
            # A finished one is not abandoned: its client is about to ask for the next.
            abandon = self._runs.stopping or outdated
            matches = not outdated and client.holds in (None, header.simulation)
        client.note_heartbeat(matches=matches or self._runs.stopping, now=self._now)
        return self._envelope.answer(header, Kind.ALIVE, Alive(abandon).pack())

    def _next(self, client: KnownClient, header: Header) -> list[Message]:
        before = client.holds if client.holds != header.simulation else None
        out: list[Message] = []
        if header.simulation != ANY_SIMULATION:  # a solver that a worker has started for this simulation
            self._runs.join(client, header)
            out = [self._assign(client, header, header.simulation)]
        if before is not None:
            # A client serves one simulation at a time; otherwise the one before would stay running for ever.
            self._runs.fail(before, f"{client} asked for another simulation without having ended this one")
            out += self._serve_waiting()
        if header.simulation == ANY_SIMULATION:
            client.may_leave = False
            self._waiting_requests[client.id] = header
            out += self._serve_waiting()
        return out

    def _serve_waiting(self) -> list[Message]:
        """Answer as many waiting NEXTs as there are simulations to hand out; all of them when there will be none."""
        out: list[Message] = []
        while self._waiting_requests and (self.production_over or self._simulations.any_waiting):
            key = next(iter(self._waiting_requests))
            header, client = self._waiting_requests.pop(key), self._clients.get(key)
            if client is None or client.number != header.request_number:
                continue  # it was given up while it waited, or has asked for something else
            if self.production_over:
                client.may_leave = True
                out.append(self._answer(client, header, Kind.NO_MORE, b""))
            else:
                out.append(self._assign(client, header, self._runs.begin(client, self._now)))
        return out

    def _assign(self, client: KnownClient, header: Header, number: int) -> Message:
        client.holds, client.mismatch_since = number, None
        point = self._simulations.point(number)
        header = header._replace(simulation=number, attempt=self._simulations[number].attempt)
        return self._answer(client, header, Kind.ASSIGN, Assign(point.parameters, point.validation).pack())

    def _serve_announced(self) -> list[Message]:
        out: list[Message] = []
        for client_id, header, accept in self._announcements.take_answers():
            client = self._clients.get(client_id)
            if client is not None and client.number == header.request_number:  # it has asked for nothing else since
                out.append(self._answer(client, header, Kind.ACCEPT, accept.pack()))
        return out

    def _finish(self, client: KnownClient, header: Header, payload: bytes) -> list[Message]:
        leaves = header.simulation == ANY_SIMULATION
        if not leaves:
            self._runs.current(header)
        finish = checked_finish(header, Finish.unpack(payload))
        if leaves and finish.outcome is not Outcome.RETURNED:
            raise WireError(
                "FINISH without a simulation id must have outcome RETURNED (a leaving client); got "
                f"{finish.outcome.name}"
            )
        self.blocked_seconds += finish.blocked_seconds
        out = [self._answer(client, header, Kind.FINISHED, b"")]
        if not leaves:
            self._runs.finish(client, header, finish)
        else:
            client.may_leave = True
            # A leaving client may hold a simulation without knowing it: the answer to its NEXT may be under way.
            if client.holds is not None:
                self._runs.give_back(client.holds)
        return out + self._serve_waiting()

    def _answer(self, client: KnownClient, header: Header, kind: Kind, payload: bytes) -> Message:
        """Return the answer to a client's latest request, and keep it for when the client repeats that."""
        client.answer = self._envelope.answer(header, kind, payload)
        return client.peer, client.answer

    def _refuse(self, header: Header, reason: Reason, text: str) -> list[bytes]:
        self._refusals += 1
        if self._refusals <= MAX_REFUSAL_EVENTS:  # the metric counts on
            self._events.write("refused", reason=reason.name.lower(), kind=header.kind.name, text=text[:MAX_TEXT])
        return self._envelope.refuse(header, reason, text)
