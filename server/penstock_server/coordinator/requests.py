"""The coordinator's answers to the messages of clients."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from penstock_client.errors import Refused, WireError
from penstock_client.payloads import Alive, Announce, Assign, Finish, Hello, Outcome, Welcome
from penstock_client.reasons import Reason
from penstock_client.wire import ANY_SIMULATION, Header, Kind, unpack
from penstock_server.coordinator.announcements import Announcements
from penstock_server.coordinator.assignments import Assignments
from penstock_server.coordinator.clients import KnownClient, KnownClients
from penstock_server.coordinator.runs import Runs, checked_finish
from penstock_server.coordinator.simulations import Simulations
from penstock_server.network import MAX_TEXT, Envelope, Frames, Message, refusal_of
from penstock_server.telemetry import ServerRun, plain_text

MAX_REFUSAL_EVENTS = 1000  # of each key: lines of events.jsonl, with which it must not fill the disk
MAX_HOST = 255  # characters of a host's name


class Requests:
    """Deals with one message at a time; see `Coordinator`.

    Args:
        simulations: the state of every simulation.
        clients: those that have said HELLO.
        runs: the simulations that run.
        announcements: the agreement on the fields.
        assignments: what the trainer ranks know of the runs.
        welcome: what every client is told.
        run: incarnation, events and metrics of this run of the server.

    Attributes:
        now: seconds on the coordinator's clock.
        welcome: as given.
        blocked_seconds: see `Coordinator`.
    """

    def __init__(
        self,
        simulations: Simulations,
        clients: KnownClients,
        runs: Runs,
        announcements: Announcements,
        assignments: Assignments,
        welcome: Welcome,
        run: ServerRun,
    ) -> None:
        self._simulations, self._clients, self._runs = simulations, clients, runs
        self._announcements, self._assignments = announcements, assignments
        self._envelope, self._events = Envelope(run.incarnation, run.metrics.refused), run.events
        self._waiting_requests: dict[bytes, Header] = {}  # NEXT without an answer yet, by client id, the oldest first
        self._refusals: Counter[str] = Counter()  # by key
        self.now = 0.0
        self.welcome = welcome
        self.blocked_seconds = 0.0

    @property
    def production_over(self) -> bool:
        """True when no time step will come any more."""
        return self._runs.stopping or self._simulations.all_ended

    def handle(self, peer: bytes, frames: Frames, worker: str) -> list[Message]:
        """Deal with one message; see `Coordinator.handle`."""
        header = Header(Kind.REFUSE)
        client: KnownClient | None = None
        try:
            if len(frames) != 2:
                raise WireError(f"control message of {len(frames)} frames, expected 2")
            header = unpack(frames[0])
            self._envelope.check(header)
            if header.kind is Kind.HELLO:
                return self._hello(peer, header, Hello.unpack(frames[1]), worker)
            if header.kind is Kind.HEARTBEAT:
                return [(peer, self._heartbeat(header, frames[1], worker))]
            sender = self._clients.sender_of_request(peer, self.now)
            if not sender.register_request(header.request_number):
                return [] if sender.answer is None else [(peer, sender.answer)]
            client = sender
            return self._dispatch(client, header, frames[1])
        except (Refused, WireError) as error:
            refusal = self._refuse(header, *refusal_of(error), worker)
        if client is not None:
            client.answer = refusal
        return [(peer, refusal)]

    def _hello(self, peer: bytes, header: Header, hello: Hello, worker: str) -> list[Message]:
        earlier = self._clients.by_connection(peer)
        if earlier is not None and earlier.id != hello.client:
            self._runs.lose({earlier: "its connection now belongs to another client"}, given_up=False)
        host = plain_text(hello.host[:MAX_HOST], lines=False)
        client, new = self._clients.hello(peer, replace(hello, host=host), self.now, worker)
        if new:
            self._events.write_for(worker, "client", pid=client.pid, host=client.host)
        return [(peer, self._envelope.answer(header, Kind.WELCOME, self.welcome.pack())), *self.serve_waiting()]

    def _dispatch(self, client: KnownClient, header: Header, payload: bytes | memoryview) -> list[Message]:
        """Deal with a request that is not a repetition."""
        if header.kind is Kind.NEXT:
            return self._next(client, header)
        if header.kind is Kind.ANNOUNCE:
            self._runs.current(header)
            client.check_serves(header.simulation, header.attempt)
            announce = Announce.unpack(payload)
            self._runs.check_open()
            self._announcements.add(client.id, header, announce)
            return self.serve_announced()
        if header.kind is Kind.FINISH:
            return self._finish(client, header, payload)
        raise WireError(
            f"{header.kind.name} was sent to the coordinator: expected HELLO, NEXT, ANNOUNCE, FINISH or HEARTBEAT there"
        )

    def _heartbeat(self, header: Header, payload: bytes | memoryview, worker: str) -> list[bytes]:
        client = self._clients.sender_of_heartbeat(bytes(payload), self.now, worker)
        abandon, matches = False, client.holds is None
        if 0 <= header.simulation < len(self._simulations):
            outdated = self._runs.outdated(header)
            abandon = self._runs.stopping or outdated
            matches = not outdated and client.holds in (None, header.simulation)
        client.note_heartbeat(matches=matches or self._runs.stopping, now=self.now)
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
            out += self.serve_waiting()
        if header.simulation == ANY_SIMULATION:
            client.may_leave = False
            self._waiting_requests[client.id] = header
            out += self.serve_waiting()
        return out

    def serve_waiting(self) -> list[Message]:
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
                out.append(self._assign(client, header, self._runs.begin(client, self.now)))
        return out

    def _assign(self, client: KnownClient, header: Header, number: int) -> Message:
        client.holds, client.mismatch_since = number, None
        point = self._simulations.point(number)
        client.serves = number, self._simulations[number].attempt
        header = header._replace(simulation=number, attempt=self._simulations[number].attempt)
        return self._answer(client, header, Kind.ASSIGN, Assign(point.parameters, point.validation).pack())

    def serve_announced(self) -> list[Message]:
        """Answer the ANNOUNCEs of clients that may begin."""
        out: list[Message] = []
        for client_id, header, accept in self._announcements.take_answers(self._assignments.known):
            client = self._clients.get(client_id)
            if client is not None and client.number == header.request_number:  # it has asked for nothing else since
                out.append(self._answer(client, header, Kind.ACCEPT, accept.pack()))
        return out

    def _finish(self, client: KnownClient, header: Header, payload: bytes | memoryview) -> list[Message]:
        leaves = header.simulation == ANY_SIMULATION
        if not leaves:
            self._runs.current(header)
            client.check_serves(header.simulation, header.attempt)
        finish = checked_finish(header, Finish.unpack(payload))
        if leaves and finish.outcome is not Outcome.RETURNED:
            raise WireError(
                "FINISH without a simulation id must have outcome RETURNED (a leaving client); got "
                f"{finish.outcome.name}"
            )
        self.blocked_seconds += min(finish.blocked_seconds, max(0.0, self.now - client.reported))
        client.reported, client.serves = self.now, None
        out = [self._answer(client, header, Kind.FINISHED, b"")]
        if not leaves:
            self._runs.finish(client, header, finish)
        else:
            client.may_leave = True
            # A leaving client may hold a simulation without knowing it: the answer to its NEXT may be under way.
            if client.holds is not None:
                self._runs.give_back(client.holds)
        return out + self.serve_waiting()

    def _answer(self, client: KnownClient, header: Header, kind: Kind, payload: bytes) -> Message:
        """Return the answer to a client's latest request, and keep it for when the client repeats that."""
        client.answer = self._envelope.answer(header, kind, payload)
        return client.peer, client.answer

    def _refuse(self, header: Header, reason: Reason, text: str, worker: str) -> list[bytes]:
        text = plain_text(text[:MAX_TEXT])  # it may quote what was sent
        self._refusals[worker] += 1
        if self._refusals[worker] <= MAX_REFUSAL_EVENTS:  # the metric counts on
            self._events.write_for(worker, "refused", reason=reason.name.lower(), kind=header.kind.name, text=text)
        return self._envelope.refuse(header, reason, text)
