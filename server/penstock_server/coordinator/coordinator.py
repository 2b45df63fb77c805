"""The coordinator's logic: who gets which simulation, who is alive, what has ended. No sockets, no threads, no clock of its own.

`handle` takes one message of one peer and returns the messages that follow from it; `tick` looks for clients that have fallen silent.
`router_loop.RouterLoop` drives both from a ROUTER socket; the inline engine calls `handle` directly. What a message costs does not
depend on how many simulations the study has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any

from penstock_client.errors import Refused, WireError
from penstock_client.payloads import Accept, Alive, Announce, Assign, Finish, Hello, Outcome, Welcome
from penstock_client.reasons import Reason
from penstock_client.wire import ANY_SIMULATION, Header, Kind, unpack
from penstock_server.coordinator.clients import KnownClient, KnownClients
from penstock_server.coordinator.simulations import Point, Simulation, SimulationCounts, Simulations
from penstock_server.network import MAX_RANKS, MAX_TEXT, Envelope, Message, refusal_of
from penstock_server.study import MAX_STEPS, Schema, Study, agree
from penstock_server.telemetry import ServerRun

MAX_REFUSAL_EVENTS = 1000  # lines of events.jsonl, which a client that repeats itself must not fill the disk with

STOPPED_SECONDS = 5.0  # without a message or a tick: the server itself stood still, since ticks come every second
# A worker ends a solver at its wall time by itself; the coordinator is there for one that does not.
WALL_TIME_MARGIN = 1.25
WALL_TIME_MARGIN_SECONDS = 30.0  # a worker may have to prepare something first


@dataclass(slots=True)
class _Run:
    """A simulation while it runs. clients: those that serve it, a worker and the solver ranks it started, as long as they do."""

    begun: float
    clients: set[bytes]
    ranks_finished: set[int] = field(default_factory=set)


class Coordinator:
    """Hands out the plan's simulations and follows them to their end.

    Args:
        plan: the simulations, by id.
        welcome: what every client is told.
        study: its [fields], [samples], [solver], [server] and [parameters].
        run: incarnation, events and metrics of this run of the server.
        on_schema: called once, when the fields' shapes are known, to make the trainer ranks ready. Returns True when they are; False
            when that has begun elsewhere, since it may take longer than clients wait for a heartbeat's answer: `configured` follows.
        schema: what a checkpoint has agreed on; None: to be agreed on with the first client.
        spares: points that take the place of training simulations which have used up their retries, one after the other, as
            simulations with new ids.
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
        self._study = study
        self._envelope, self._events = Envelope(run.incarnation, run.metrics.refused), run.events
        self._client_timeout = study.server.client_timeout
        self._on_schema = on_schema
        self._schema = schema
        self._configured = schema is not None
        # ANNOUNCEs that wait for the trainer ranks to be ready, by client
        self._announced: dict[bytes, tuple[Header, Accept]] = {}
        self._static_arrived: set[str] = set()
        self._simulations = Simulations(plan, spares, study.samples)
        self._running: dict[int, _Run] = {}
        self._clients = KnownClients()
        self._parked: dict[bytes, Header] = {}  # NEXT without an answer yet, by client, in order
        self._now = 0.0
        self._refusals = 0
        self._stopping = False
        self.blocked_seconds = 0.0  # time that clients spent waiting for credit, as they report it

    # What is asked of it ------------------------------------------------------------------------------------------

    @property
    def production_over(self) -> bool:
        """True when no time step will come any more."""
        return self._stopping or self._simulations.all_ended

    @property
    def wanted_workers(self) -> int:
        """Simulations that are waiting or running: more workers than that have nothing to do."""
        return 0 if self._stopping else self._simulations.wanted

    def counts(self) -> SimulationCounts:
        """Simulations by state."""
        return self._simulations.counts()

    def given_up(self) -> tuple[tuple[str, int], ...]:
        """Host and process id of clients that were given up: they may be frozen, and hold a worker's place."""
        return self._clients.stuck()

    def failures(self) -> dict[int, str]:
        """Why each failed simulation failed."""
        return self._simulations.failures()

    @property
    def has_waiting(self) -> bool:
        """True when there is a simulation to hand out now."""
        return self._simulations.any_waiting and not self._stopping

    def expected(self, arrived: Callable[[int], int]) -> int:
        """As `Simulations.expected`."""
        return self._simulations.expected(arrived)

    def state_dict(self) -> dict[str, Any]:
        """What a later incarnation must know, for a checkpoint."""
        return {**self._simulations.state_dict(), "static_arrived": sorted(self._static_arrived)}

    def load_state_dict(
        self, state: Mapping[str, Any], arrived: Callable[[int], int], again: Sequence[int] = ()
    ) -> None:
        """Take up an earlier incarnation's work. What had finished stays so if all its samples had arrived by the checkpoint.

        What was under way then is handed out first, as a further attempt.

        arrived: as for `expected`; for a held-out simulation, its time steps. again: simulations under way that go on where they
            were, handed out before all others in this order and as the same attempt.
        """
        self._simulations.load_state_dict(state, arrived, again)
        self._static_arrived = set(state["static_arrived"])

    def stop(self) -> list[Message]:
        """Hand out nothing more, and tell running clients to abandon what they do."""
        self._stopping = True
        return self._serve_parked()

    def worker_exited(self, host: str, pid: int, message: str) -> list[Message]:
        """A worker process has ended: what it held is handed out again."""
        text = message or "its worker process ended"
        return self._lose(dict.fromkeys(self._clients.ended(host, pid), text), given_up=False)

    def tick(self, now: float) -> list[Message]:
        """Give up clients that have been silent for too long, or serve something else than they should; end what runs too long."""
        self._advance(now)
        lost: dict[KnownClient, str] = {}
        for client in self._clients:
            if now - client.heard > self._client_timeout:
                if client.may_leave and client.holds is None:
                    self._clients.remove(client, given_up=False)
                else:
                    lost[client] = f"no heartbeat for {self._client_timeout:.0f} s"
            elif client.adrift is not None and now - client.adrift > self._client_timeout:
                held = "none" if client.holds is None else f"simulation {client.holds}"
                lost[client] = (
                    f"its heartbeats have named another simulation than it holds ({held}) for {self._client_timeout:.0f} s"
                )
        out = self._lose(lost, given_up=True)
        patience = self._study.solver.wall_time * WALL_TIME_MARGIN + WALL_TIME_MARGIN_SECONDS
        for number in [number for number, run in self._running.items() if now - run.begun > patience]:
            out += self._fail(
                number,
                f"it ran longer than wall_time = {self._study.solver.wall_time:g} s, and nobody stopped it: raise [solver] wall_time or "
                "make the simulation cheaper",
            )
        return out

    # What arrives --------------------------------------------------------------------------------------------------

    def handle(self, peer: bytes, frames: list[bytes], now: float = 0.0) -> list[Message]:
        """Deal with one message; the messages to send follow. Never raises for what a peer sent."""
        self._advance(now)
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
            asking = self._clients.at(peer, now)
            if not asking.asks_anew(header.offset):
                return [] if asking.answer is None else [(peer, asking.answer)]
            client = asking
            return self._dispatch(client, header, frames[1])
        except (Refused, WireError) as error:
            refusal = self._refuse(header, *refusal_of(error))
        if client is not None:
            client.answer = refusal
        return [(peer, refusal)]

    def _advance(self, now: float) -> None:
        """The clock goes on. Time in which this process was stopped is nobody's silence: what was sent then has yet to be read."""
        stood_still = now - self._now
        self._now = now
        if stood_still < STOPPED_SECONDS:
            return
        for client in self._clients:
            client.heard += stood_still
            if client.adrift is not None:
                client.adrift += stood_still
        for run in self._running.values():
            run.begun += stood_still

    def _hello(self, peer: bytes, header: Header, hello: Hello) -> list[Message]:
        earlier = self._clients.over(peer)
        out: list[Message] = []
        if earlier is not None and earlier.id != hello.client:
            out = self._lose({earlier: "its connection now belongs to another client"}, given_up=False)
        client, new = self._clients.hello(peer, replace(hello, host=hello.host[:MAX_TEXT]), self._now)
        if new:
            self._events.write("client", pid=client.pid, host=client.host)
        return [(peer, self._envelope.answer(header, Kind.WELCOME, self._welcome.pack())), *out]

    def _dispatch(self, client: KnownClient, header: Header, payload: bytes) -> list[Message]:
        """Deal with a request that is not a repetition."""
        if header.kind is Kind.NEXT:
            return self._next(client, header)
        if header.kind is Kind.ANNOUNCE:
            self._current(header)
            self._announced[client.id] = header, self._announce(Announce.unpack(payload))
            return self._serve_announced()
        if header.kind is Kind.FINISH:
            leaves = header.simulation == ANY_SIMULATION
            if not leaves:
                self._current(header)
            finish = _plausible(header, Finish.unpack(payload))
            if leaves:
                return self._leave(client, header, finish)
            return [self._answer(client, header, Kind.FINISHED, b""), *self._finish(client, header, finish)]
        raise WireError(f"{header.kind.name} is not for the coordinator")

    def _heartbeat(self, header: Header, payload: bytes) -> list[bytes]:
        client = self._clients.named(payload, self._now)
        abandon, agrees = False, client.holds is None
        if 0 <= header.simulation < len(self._simulations):
            simulation = self._simulations[header.simulation]
            outdated = simulation.attempt != header.attempt or simulation.state in ("waiting", "failed")
            # One that has finished is not abandoned: its client is about to ask for the next.
            abandon = self._stopping or outdated
            agrees = not outdated and client.holds in (None, header.simulation)
        if agrees or self._stopping:
            client.adrift = None
        elif client.adrift is None:
            client.adrift = self._now
        return self._envelope.answer(header, Kind.ALIVE, Alive(abandon).pack())

    def _current(self, header: Header) -> Simulation:
        """The simulation that a message is about, when the message belongs to its current attempt."""
        if not 0 <= header.simulation < len(self._simulations):
            raise Refused(
                Reason.UNKNOWN_SIMULATION,
                f"simulation {header.simulation}: the study has 0 to {len(self._simulations) - 1}",
            )
        simulation = self._simulations[header.simulation]
        if header.attempt != simulation.attempt:
            raise Refused(
                Reason.STALE_ATTEMPT,
                f"attempt {header.attempt} of simulation {header.simulation}: attempt {simulation.attempt} is the current one",
            )
        return simulation

    def _next(self, client: KnownClient, header: Header) -> list[Message]:
        before = client.holds if client.holds != header.simulation else None
        out = [self._join(client, header)] if header.simulation != ANY_SIMULATION else []
        if before is not None:
            # It serves one simulation at a time. Left as it is, the one before would stay running for ever.
            out += self._fail(before, f"{client} asked for another simulation without having ended this one")
        if header.simulation == ANY_SIMULATION:
            client.may_leave = False
            self._parked[client.id] = header
            out += self._serve_parked()
        return out

    def _join(self, client: KnownClient, header: Header) -> Message:
        """A solver that was started for one simulation joins the worker which holds it."""
        if self._stopping:
            raise Refused(Reason.STUDY_OVER, "the study is stopping and wants no more data")
        simulation = self._current(header)
        if simulation.state != "running":
            raise Refused(
                Reason.UNKNOWN_SIMULATION,
                f"simulation {header.simulation} is {simulation.state}, not running: only what a worker holds can be joined",
            )
        self._running[header.simulation].clients.add(client.id)
        return self._assign(client, header, header.simulation)

    def _serve_parked(self) -> list[Message]:
        """Answer as many waiting NEXTs as there are simulations to hand out; all of them when there will be none."""
        out: list[Message] = []
        while self._parked and (self.production_over or self._simulations.any_waiting):
            key = next(iter(self._parked))
            header, client = self._parked.pop(key), self._clients.get(key)
            if client is None or client.number != header.offset:
                continue  # it was given up while it waited, or has asked for something else
            if self.production_over:
                client.may_leave = True
                out.append(self._answer(client, header, Kind.NO_MORE, b""))
                continue
            number = self._simulations.take()
            simulation = self._simulations[number]
            self._running[number] = _Run(self._now, {client.id})
            self._events.write("assigned", simulation=number, attempt=simulation.attempt, pid=client.pid)
            out.append(self._assign(client, header, number))
        return out

    def _assign(self, client: KnownClient, header: Header, number: int) -> Message:
        client.holds, client.adrift = number, None
        point = self._simulations.point(number)
        header = header._replace(simulation=number, attempt=self._simulations[number].attempt)
        return self._answer(client, header, Kind.ASSIGN, Assign(point.parameters, point.validation).pack())

    def _announce(self, announce: Announce) -> Accept:
        if self._stopping:
            raise Refused(Reason.STUDY_OVER, "the study is stopping and wants no more data")
        schema = agree(
            announce.fields,
            self._study.fields,
            self._welcome.parameters,
            self._study.samples,
            self._schema,
            seeds=len(self._study.parameters.seeds),
            max_message=self._study.server.max_message,
        )
        if self._schema is None:
            self._events.write("schema", fields={f.name: [*f.shape, f.components] for f in schema.spec.fields})
            self._schema = schema
            self._configured = self._on_schema(schema)
        ids = tuple(schema.ids[f.name] for f in announce.fields)
        return Accept(ids, tuple(f.name not in self._static_arrived for f in announce.fields))

    def configured(self) -> list[Message]:
        """The trainer ranks are ready for the fields: whoever has announced them may begin."""
        self._configured = True
        return self._serve_announced()

    def _serve_announced(self) -> list[Message]:
        if not self._configured:
            return []
        waiting, self._announced = self._announced, {}
        out: list[Message] = []
        for key, (header, accept) in waiting.items():
            client = self._clients.get(key)
            if client is not None and client.number == header.offset:  # it has asked for nothing else meanwhile
                out.append(self._answer(client, header, Kind.ACCEPT, accept.pack()))
        return out

    def static_arrived(self, name: str) -> None:
        """A static field is in; later clients need not send it."""
        self._static_arrived.add(name)

    def _finish(self, client: KnownClient, header: Header, finish: Finish) -> list[Message]:
        number, simulation = header.simulation, self._simulations[header.simulation]
        self.blocked_seconds += finish.blocked_seconds
        run = self._running.get(number)
        if run is None:  # the stream's own FINISH has been before the worker's word on the process
            if finish.message:
                self._events.write(
                    "solver", simulation=number, outcome=finish.outcome.name.lower(), text=finish.message
                )
            return []
        if finish.outcome is Outcome.FINISHED:
            run.ranks_finished.add(header.rank)
            simulation.steps = max(simulation.steps, finish.steps)
            if len(run.ranks_finished) < finish.ranks:
                run.clients.discard(client.id)  # it has done its part, and may end before the others
                client.holds = None
                return []
            self._simulations.enter(number, "finished")
            self._release(number)
            self._events.write("finished", simulation=number, attempt=header.attempt, steps=simulation.steps)
            return self._serve_parked()
        if finish.outcome is Outcome.RETURNED:
            return self._return(number)
        message = finish.message
        if finish.outcome is Outcome.EXITED:
            message = (
                f"the solver ended without finishing its stream: does it load Penstock's client? {message}".strip()
            )
        return self._fail(number, message)

    def _leave(self, client: KnownClient, header: Header, finish: Finish) -> list[Message]:
        """A client goes that may hold a simulation, or waits for one, and cannot know which: its NEXT may just have been answered."""
        if finish.outcome is not Outcome.RETURNED:
            raise WireError(
                f"FINISH of no simulation with outcome {finish.outcome.name}: expected RETURNED, from who leaves"
            )
        self.blocked_seconds += finish.blocked_seconds
        number, client.may_leave = client.holds, True
        out = [self._answer(client, header, Kind.FINISHED, b"")]
        return out if number is None else [*out, *self._return(number)]

    def _return(self, number: int) -> list[Message]:
        """A simulation comes back unfinished, and is the next to be handed out."""
        self._simulations.give_back(number)
        self._release(number)
        self._events.write("returned", simulation=number, attempt=self._simulations[number].attempt)
        return self._serve_parked()

    def _fail(self, number: int, message: str) -> list[Message]:
        again = self._simulations.fail(number, message, retries=self._study.solver.retries, stopping=self._stopping)
        self._release(number)
        attempt = self._simulations[number].attempt
        self._events.write("failed", simulation=number, attempt=attempt, again=again, message=message)
        if (replacement := self._simulations.replacement(number)) is not None:
            self._events.write("redrawn", simulation=number, replacement=replacement)
        return self._serve_parked()

    def _release(self, number: int) -> None:
        """A simulation runs no more: whoever served it holds nothing."""
        run = self._running.pop(number, None)
        for key in run.clients if run is not None else ():
            client = self._clients.get(key)
            if client is not None and client.holds == number:
                client.holds = None

    def _lose(self, clients: Mapping[KnownClient, str], *, given_up: bool) -> list[Message]:
        """Clients are gone, and why: the simulations that they served have failed. given_up: their processes may still be there."""
        for client, message in clients.items():  # all of them first, or one would be given what another held
            self._clients.remove(client, given_up=given_up)
            self._events.write("client_lost", pid=client.pid, host=client.host, message=message)
        return [
            m
            for client, message in clients.items()
            if client.holds is not None
            for m in self._fail(client.holds, f"{client}: {message}")
        ]

    def _answer(self, client: KnownClient, header: Header, kind: Kind, payload: bytes) -> Message:
        """The answer to a client's latest request, kept for when it repeats that."""
        client.answer = self._envelope.answer(header, kind, payload)
        return client.peer, client.answer

    def _refuse(self, header: Header, reason: Reason, text: str) -> list[bytes]:
        self._refusals += 1
        if self._refusals <= MAX_REFUSAL_EVENTS:  # the metric counts on
            self._events.write("refused", reason=reason.name.lower(), kind=header.kind.name, text=text[:MAX_TEXT])
        return self._envelope.refuse(header, reason, text)


def _plausible(header: Header, finish: Finish) -> Finish:
    """A client's FINISH with its text cut to what is kept. WireError for figures that no client can have, which would spoil the study's."""
    if not (isfinite(finish.blocked_seconds) and finish.blocked_seconds >= 0):
        raise WireError(f"FINISH after {finish.blocked_seconds} s of waiting: expected a finite number, 0 or more")
    if not header.rank < finish.ranks <= MAX_RANKS:
        raise WireError(
            f"FINISH of solver rank {header.rank} of {finish.ranks}: expected 0 <= rank < ranks <= {MAX_RANKS}"
        )
    if finish.steps > MAX_STEPS:
        raise WireError(f"FINISH after {finish.steps} time steps: at most {MAX_STEPS} are allowed")
    return replace(finish, message=finish.message[:MAX_TEXT])
