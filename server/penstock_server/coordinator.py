"""The coordinator's logic: who gets which simulation, who is alive, what has ended. No sockets, no threads, no clock of its own.

`handle` takes one message of one peer and returns the messages that follow from it; `tick` looks for clients that have fallen silent.
`control_loop.ControlLoop` drives both from a ROUTER socket; the inline engine calls them directly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock_client.errors import Refused, WireError
from penstock_client.payloads import Accept, Alive, Announce, Assign, Finish, Hello, Outcome, Refuse, Welcome
from penstock_client.reasons import Reason
from penstock_client.wire import ANY_SIMULATION, Header, Kind, VersionMismatch, unpack
from penstock_server.agreement import Schema, agree
from penstock_server.assembly import windows_in
from penstock_server.config import FieldSection, SamplesSection
from penstock_server.engine import SimulationCounts
from penstock_server.events import EventLog

Message = tuple[bytes, list[bytes]]
"""A peer and the frames that go to it."""


@dataclass(frozen=True)
class Point:
    """One simulation of the study's plan: its place in the parameter space, and whether it is held out."""

    parameters: tuple[float, ...]
    validation: bool


@dataclass
class _Client:
    """A client process, known by the 16 bytes of its HELLO."""

    pid: int
    host: str
    heard: float


@dataclass
class _Simulation:
    """How one simulation stands. `clients` are those that serve it now: a worker, and the solver ranks it started."""

    state: str = "waiting"  # waiting, running, finished, failed
    attempt: int = 0
    failures: int = 0
    clients: set[bytes] = field(default_factory=set)
    ranks_finished: set[int] = field(default_factory=set)
    steps: int = 0
    message: str = ""


class Coordinator:
    """Hands out the plan's simulations and follows them to their end.

    Args:
        plan: the simulations, by id. spares: points that take the place of training simulations which have used up their retries, one
            after the other, as simulations with new ids.
        welcome: what every client is told.
        fields: the study's [fields].
        samples: what time steps are made into.
        retries: further attempts of a simulation that failed.
        on_schema: called once, when the fields' shapes are known, to make the trainer ranks ready. True: they are. False: it has begun
            elsewhere, since it may take longer than clients wait for a heartbeat's answer, and `configured` will be called.
        on_refused: called with the reason of every refusal, to count it.
    """

    def __init__(
        self,
        plan: Sequence[Point],
        welcome: Welcome,
        *,
        incarnation: int,
        fields: dict[str, FieldSection],
        samples: SamplesSection,
        retries: int,
        client_timeout: float,
        on_schema: Callable[[Schema], bool],
        on_refused: Callable[[Reason], None],
        events: EventLog,
        seeds: int = 0,
        schema: Schema | None = None,
        spares: Sequence[Point] = (),
    ) -> None:
        self._plan, self._spares = list(plan), spares
        self._welcome = welcome
        self._incarnation = incarnation
        self._fields = fields
        self._samples = samples
        self._seeds = seeds
        self._retries = retries
        self._client_timeout = client_timeout
        self._on_schema = on_schema
        self._on_refused = on_refused
        self._events = events
        self._schema = schema
        self._configured = schema is not None
        self._announced: list[
            tuple[bytes, Header, Accept]
        ] = []  # ANNOUNCEs that wait for the trainer ranks to be ready
        self._static_arrived: set[str] = set()
        self._simulations = [_Simulation() for _ in plan]
        self._waiting = deque(self._in_turn())
        self._clients: dict[bytes, _Client] = {}
        self._peers: dict[bytes, bytes] = {}  # peer of a control connection -> client
        self._parked: deque[tuple[bytes, Header]] = deque()  # NEXT without an answer yet
        self._restarted = 0
        self._redrawn: list[int] = []  # failed simulations that a spare point has replaced
        self._stopping = False
        self.blocked_seconds = 0.0  # time that clients spent waiting for credit, as they report it

    # What is asked of it ------------------------------------------------------------------------------------------

    @property
    def production_over(self) -> bool:
        """True when no time step will come any more."""
        return self._stopping or all(s.state in ("finished", "failed") for s in self._simulations)

    @property
    def wanted_workers(self) -> int:
        """Simulations that are waiting or running: more workers than that have nothing to do."""
        if self._stopping:
            return 0
        return sum(s.state in ("waiting", "running") for s in self._simulations)

    def counts(self) -> SimulationCounts:
        """Simulations by state."""
        states, redrawn = [s.state for s in self._simulations], len(self._redrawn)
        return SimulationCounts(
            requested=len(states) - redrawn,
            finished=states.count("finished"),
            failed=states.count("failed") - redrawn,
            running=states.count("running"),
            restarted=self._restarted,
            redrawn=redrawn,
        )

    def failures(self) -> dict[int, str]:
        """Why each failed simulation failed."""
        return {i: s.message for i, s in enumerate(self._simulations) if s.state == "failed"}

    @property
    def has_waiting(self) -> bool:
        """True when there is a simulation to hand out now."""
        return bool(self._waiting) and not self._stopping

    def expected(self, arrived: Callable[[int], int]) -> int:
        """Training samples that the study must have: all of each finished simulation, and what has arrived of any other.

        arrived: how many samples of a simulation are in the trainer ranks' ledgers.
        """
        return sum(
            windows_in(s.steps, self._samples.window, self._samples.stride) if s.state == "finished" else arrived(i)
            for i, s in enumerate(self._simulations)
            if not self._plan[i].validation
        )

    def state_dict(self) -> dict[str, Any]:
        """What a later incarnation must know, for a checkpoint."""
        numbered = list(enumerate(self._simulations))
        return {
            "steps": {str(i): s.steps for i, s in numbered if s.state == "finished"},
            "attempts": {str(i): s.attempt for i, s in numbered if s.attempt},
            "failures": {str(i): [s.failures, s.message] for i, s in numbered if s.failures},
            "failed": [i for i, s in numbered if s.state == "failed"],
            "redrawn": list(self._redrawn),
            "waiting": list(self._waiting),
            "restarted": self._restarted,
            "static_arrived": sorted(self._static_arrived),
        }

    def load_state_dict(
        self, state: Mapping[str, Any], arrived: Callable[[int], int], again: Sequence[int] = ()
    ) -> None:
        """Take up an earlier incarnation's work. What had finished stays so if all its samples had arrived by the checkpoint.

        What was under way then is handed out first, as a further attempt.

        arrived: as for `expected`; for a held-out simulation, its time steps. again: simulations under way that go on where they
            were, handed out before all others in this order and as the same attempt.
        """
        for number in state["redrawn"]:
            self._redraw(number)
        for number, attempt in state["attempts"].items():
            self._simulations[int(number)].attempt = attempt - (int(number) in again)
        for number, (failures, message) in state["failures"].items():
            self._simulations[int(number)].failures, self._simulations[int(number)].message = failures, message
        for number in state["failed"]:
            self._simulations[number].state = "failed"
        for number, steps in state["steps"].items():
            i = int(number)
            window, stride = (1, 1) if self._plan[i].validation else (self._samples.window, self._samples.stride)
            if arrived(i) >= windows_in(steps, window, stride):
                self._simulations[i].state, self._simulations[i].steps = "finished", steps
        self._restarted = state["restarted"] - sum(self._simulations[i].attempt > 0 for i in again)
        later = dict.fromkeys(state["waiting"])
        under_way = [i for i in self._in_turn() if i not in later]
        order = dict.fromkeys([*again, *under_way, *later])
        self._waiting = deque(i for i in order if self._simulations[i].state == "waiting")
        self._static_arrived = set(state["static_arrived"])

    def _in_turn(self) -> list[int]:
        """All simulations, the held-out ones first: there is something to validate on from the start."""
        return sorted(range(len(self._plan)), key=lambda i: (not self._plan[i].validation, i))

    def stop(self) -> list[Message]:
        """Hand out nothing more, and tell running clients to abandon what they do."""
        self._stopping = True
        return self._serve_parked()

    def worker_exited(self, pid: int, message: str) -> list[Message]:
        """A worker process on this machine has ended: what it held is handed out again."""
        gone = [key for key, client in self._clients.items() if client.pid == pid]
        return [m for key in gone for m in self._lose(key, message or "its worker process ended")]

    def tick(self, now: float) -> list[Message]:
        """Give up clients that have been silent for longer than the time-out."""
        silent = [key for key, client in self._clients.items() if now - client.heard > self._client_timeout]
        return [m for key in silent for m in self._lose(key, f"no heartbeat for {self._client_timeout:.0f} s")]

    # What arrives --------------------------------------------------------------------------------------------------

    def handle(self, peer: bytes, frames: list[bytes], now: float = 0.0) -> list[Message]:
        """Deal with one message; the messages to send follow. Never raises for what a peer sent."""
        header = Header(Kind.REFUSE)
        try:
            if len(frames) != 2:
                raise WireError(f"control message of {len(frames)} frames, expected 2")
            header = unpack(frames[0])
            if header.incarnation != self._incarnation:
                raise Refused(
                    Reason.INCARNATION,
                    f"this is incarnation {self._incarnation} of the server, the message belongs to {header.incarnation}: "
                    "read connect.json again",
                )
            return self._dispatch(peer, header, frames[1], now)
        except Refused as refused:
            return [(peer, self._refusal(header, refused.reason, refused.text))]
        except VersionMismatch as error:
            return [(peer, self._refusal(header, Reason.VERSION, str(error)))]
        except WireError as error:
            return [(peer, self._refusal(header, Reason.MALFORMED, str(error)))]

    def _dispatch(self, peer: bytes, header: Header, payload: bytes, now: float) -> list[Message]:
        if header.kind is Kind.HELLO:
            hello = Hello.unpack(payload)
            self._clients[hello.client] = _Client(hello.pid, hello.host, now)
            self._peers[peer] = hello.client
            self._events.write("client", pid=hello.pid, host=hello.host)
            return [(peer, self._answer(header, Kind.WELCOME, self._welcome.pack()))]
        if header.kind is Kind.HEARTBEAT:
            return [(peer, self._heartbeat(header, payload, now))]
        key = self._peers.get(peer)
        if key is None or key not in self._clients:
            raise Refused(Reason.INCARNATION, "the server does not know this client any more: connect again with HELLO")
        self._clients[key].heard = now
        if header.kind is Kind.NEXT:
            if header.simulation != ANY_SIMULATION:
                return [(peer, self._join(key, header))]
            self._parked.append((peer, header))
            return self._serve_parked()
        simulation = self._current(header)
        if header.kind is Kind.ANNOUNCE:
            self._announced.append((peer, header, self._announce(Announce.unpack(payload))))
            return self._serve_announced()
        if header.kind is Kind.FINISH:
            simulation.clients.add(key)
            answer = self._answer(header, Kind.FINISHED, b"")
            return [(peer, answer), *self._finish(header, Finish.unpack(payload))]
        raise WireError(f"{header.kind.name} is not for the coordinator")

    def _heartbeat(self, header: Header, payload: bytes, now: float) -> list[bytes]:
        client = self._clients.get(payload)
        if client is None:
            raise Refused(Reason.INCARNATION, "the server does not know this client any more: connect again with HELLO")
        client.heard = now
        abandon = False
        if 0 <= header.simulation < len(self._simulations):
            simulation = self._simulations[header.simulation]
            # One that has finished is not abandoned: its client is about to ask for the next.
            abandon = (
                self._stopping or simulation.attempt != header.attempt or simulation.state in ("waiting", "failed")
            )
        return self._answer(header, Kind.ALIVE, Alive(abandon).pack())

    def _current(self, header: Header) -> _Simulation:
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

    def _join(self, key: bytes, header: Header) -> list[bytes]:
        """A solver that was started for one simulation joins the worker which holds it."""
        if self._stopping:
            raise Refused(Reason.STUDY_OVER, "the study is stopping and wants no more data")
        simulation = self._current(header)
        if simulation.state != "running":
            raise Refused(
                Reason.UNKNOWN_SIMULATION,
                f"simulation {header.simulation} is {simulation.state}, not running: only what a worker holds can be joined",
            )
        simulation.clients.add(key)
        return self._assignment(header, header.simulation)

    def _serve_parked(self) -> list[Message]:
        """Answer as many waiting NEXTs as there are simulations to hand out; all of them when there will be none."""
        out: list[Message] = []
        while self._parked and self._waiting and not self._stopping:
            peer, header = self._parked.popleft()
            key = self._peers.get(peer)
            if key is None or key not in self._clients:
                continue  # its client was given up while it waited
            number = self._waiting.popleft()
            simulation = self._simulations[number]
            simulation.state, simulation.attempt = "running", simulation.attempt + 1
            simulation.clients, simulation.ranks_finished = {key}, set()
            self._restarted += simulation.attempt > 1
            self._events.write("assigned", simulation=number, attempt=simulation.attempt, pid=self._clients[key].pid)
            out.append((peer, self._assignment(header, number)))
        while self._parked and self.production_over:
            peer, header = self._parked.popleft()
            out.append((peer, self._answer(header, Kind.NO_MORE, b"")))
        return out

    def _assignment(self, header: Header, number: int) -> list[bytes]:
        point = self._plan[number]
        header = header._replace(simulation=number, attempt=self._simulations[number].attempt)
        return self._answer(header, Kind.ASSIGN, Assign(point.parameters, point.validation).pack())

    def _announce(self, announce: Announce) -> Accept:
        if self._stopping:
            raise Refused(Reason.STUDY_OVER, "the study is stopping and wants no more data")
        schema = agree(
            announce.fields, self._fields, self._welcome.parameters, self._samples, self._schema, seeds=self._seeds
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
        waiting, self._announced = self._announced, []
        return [(peer, self._answer(header, Kind.ACCEPT, accept.pack())) for peer, header, accept in waiting]

    def static_arrived(self, name: str) -> None:
        """A static field is in; later clients need not send it."""
        self._static_arrived.add(name)

    def _finish(self, header: Header, finish: Finish) -> list[Message]:
        simulation = self._simulations[header.simulation]
        self.blocked_seconds += finish.blocked_seconds
        if simulation.state != "running":  # the stream's own FINISH has been before the worker's word on the process
            if finish.message:
                self._events.write(
                    "solver", simulation=header.simulation, outcome=finish.outcome.name.lower(), text=finish.message
                )
            return []
        if finish.outcome is Outcome.FINISHED:
            simulation.ranks_finished.add(header.rank)
            simulation.steps = max(simulation.steps, finish.steps)
            if len(simulation.ranks_finished) < finish.ranks:
                return []
            simulation.state = "finished"
            self._events.write("finished", simulation=header.simulation, attempt=header.attempt, steps=simulation.steps)
            return self._serve_parked()
        if finish.outcome is Outcome.RETURNED:
            simulation.state = "waiting"
            self._waiting.appendleft(header.simulation)
            self._events.write("returned", simulation=header.simulation, attempt=header.attempt)
            return self._serve_parked()
        message = finish.message
        if finish.outcome is Outcome.EXITED:
            message = (
                f"the solver ended without finishing its stream: does it load Penstock's client? {message}".strip()
            )
        return self._fail(header.simulation, message)

    def _fail(self, number: int, message: str) -> list[Message]:
        simulation = self._simulations[number]
        simulation.failures += 1
        simulation.message = message
        again = simulation.failures <= self._retries and not self._stopping
        simulation.state = "waiting" if again or self._stopping else "failed"
        if again:
            self._waiting.append(number)
        self._events.write("failed", simulation=number, attempt=simulation.attempt, again=again, message=message)
        if (
            simulation.state == "failed"
            and not self._plan[number].validation
            and len(self._redrawn) < len(self._spares)
        ):
            replacement = self._redraw(number)
            self._waiting.append(replacement)
            self._events.write("redrawn", simulation=number, replacement=replacement)
        return self._serve_parked()

    def _redraw(self, number: int) -> int:
        """Give the study another simulation in place of one that has failed for good; returns its id."""
        self._plan.append(self._spares[len(self._redrawn)])
        self._simulations.append(_Simulation())
        self._redrawn.append(number)
        return len(self._plan) - 1

    def _lose(self, key: bytes, message: str) -> list[Message]:
        """A client is gone: every running simulation it was part of has failed."""
        client = self._clients.pop(key)
        self._peers = {peer: k for peer, k in self._peers.items() if k != key}
        self._events.write("client_lost", pid=client.pid, host=client.host, message=message)
        held = [i for i, s in enumerate(self._simulations) if s.state == "running" and key in s.clients]
        return [m for number in held for m in self._fail(number, f"client {client.host}:{client.pid}: {message}")]

    def _answer(self, header: Header, kind: Kind, payload: bytes) -> list[bytes]:
        return [header._replace(kind=kind, incarnation=self._incarnation).pack(), payload]

    def _refusal(self, header: Header, reason: Reason, text: str) -> list[bytes]:
        self._on_refused(reason)
        self._events.write("refused", reason=reason.name.lower(), kind=header.kind.name, text=text)
        return self._answer(header, Kind.REFUSE, Refuse(reason, text).pack())
