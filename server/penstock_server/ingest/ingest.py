"""A trainer rank's ingest: takes pieces, puts samples together, commits them to the buffer. No sockets, no threads of its own.

`handle` takes one message of one peer; the messages to send follow from it. It never raises for what a peer sent: bad input costs
that message, which is refused and counted.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np

from penstock_client.errors import Refused, WireError
from penstock_client.reasons import Reason
from penstock_client.stream_payloads import Begin, Streamed
from penstock_client.wire import Header, Kind, unpack
from penstock_server.buffer import Slot
from penstock_server.ingest.assembly import PartialStep, WindowBuilder
from penstock_server.ingest.partition import Partition
from penstock_server.ingest.pieces import LARGEST, Pieces, finite
from penstock_server.ingest.sinks import SampleSinks, SimulationIds
from penstock_server.ingest.static_fields import StaticFields
from penstock_server.network import MAX_RANKS, Envelope, Message, refusal_of
from penstock_server.study import SamplesSection, Schema
from penstock_server.telemetry import Metrics

NOTHING_STREAMED = Streamed(0, 0, 0)
MAX_PEERS = 2**14  # connections remembered: more than a process may have open; nothing says when one has gone
UNFINISHED = 16  # time steps that a simulation may always have unfinished; more while their bytes are few
MAX_REFUSALS = 100  # answered one by one in a stream; STREAMED counts all
UNREAD = Header(Kind.PIECE)  # stands for the header of a message that has none that can be read


@dataclass
class _Peer:
    """One data connection: the stream that is open on it, and its credit."""

    name: bytes = b""
    header: Header | None = None
    parameters: tuple[float, ...] = ()
    streamed: Streamed = NOTHING_STREAMED
    consumed: int = 0  # payload bytes dealt with, since the connection was made
    granted: int = 0


@dataclass(slots=True)
class _Simulation:
    """What is under way of one simulation, from its BEGIN until all of its solver ranks have said END.

    again: so many of its first time steps were dealt with before a checkpoint and come again. counted: so many are in the
    checkpoint's statistics; one more than `again` where the sample of the last was waiting for room in the buffer.
    """

    attempt: int = 0
    partial: dict[int, tuple[PartialStep, Slot | None]] = field(default_factory=dict)
    windows: WindowBuilder | None = None
    ended: set[int] = field(default_factory=set)  # solver ranks that have said END
    ranks: int = 1
    again: int = 0
    counted: int = 0
    senders: set[bytes] = field(default_factory=set)  # connections that have begun its current attempt
    partition: Partition = field(default_factory=Partition)


class Ingest:
    """Where this rank's share of the stream ends up.

    Args:
        schema: the fields that clients send.
        samples: the study's [samples]: what time steps are made into.
        ids: which simulations there are, and which of them are held out.
        sinks: where samples, held-out time steps and static fields go.
        incarnation: of this run of the server; messages of another one are refused.
        credit: bytes that a client may have under way.
        metrics: of this process.
    """

    def __init__(
        self,
        schema: Schema,
        samples: SamplesSection,
        ids: SimulationIds,
        sinks: SampleSinks,
        *,
        incarnation: int,
        credit: int,
        metrics: Metrics,
    ) -> None:
        self._schema = schema
        self._samples = samples
        self._total, self._held_out = ids.total, ids.held_out_ids
        self._sinks = sinks
        self._envelope = Envelope(incarnation, metrics.refused)
        self._credit = credit
        self._metrics = metrics
        self._pieces = Pieces(schema)
        self._peers: OrderedDict[bytes, _Peer] = OrderedDict()  # the one that has been silent longest comes first
        self._simulations: dict[int, _Simulation] = {}
        self._ended: dict[int, tuple[int, int]] = {}  # attempt and solver ranks of each simulation that has ended
        self._static = StaticFields(sinks.on_static)

    def handle(self, peer: bytes, frames: list[bytes], now: float = 0.0) -> list[Message]:  # noqa: ARG002 - a Handler
        """Deal with one message. Blocks while the buffer has no room."""
        state = self._peer(peer)
        out: list[list[bytes]] = []
        if frames and len(frames) % 2 and len(frames) > 1:
            out.append(
                self._envelope.refuse(
                    UNREAD, Reason.MALFORMED, f"{len(frames)} frames: expected header and payload in turn"
                )
            )
            frames = frames[:-1]
        for at in range(0, max(1, len(frames)), 2):
            out += self._one(state, frames[at : at + 2])
        if state.consumed + self._credit - state.granted >= self._credit // 8 and state.header is not None:
            out.append(self._grant(state))
        return [(peer, reply) for reply in out]

    def take_up(self, simulation: int, attempt: int, steps: int, *, counted: int) -> None:
        """Go on with an attempt that a checkpoint was made in the middle of, by a client that sends its time steps again.

        The first `steps` were dealt with before: they are passed over, or only make the windows of later ones whole. The first
        `counted` were counted before. Call it before the attempt's BEGIN.
        """
        state = self._simulations[simulation] = self._fresh(attempt, ranks=1)
        state.again, state.counted = steps, counted

    def incomplete(self) -> int:
        """Time steps of which pieces are missing."""
        return sum(len(simulation.partial) for simulation in list(self._simulations.values()))

    def give_up_incomplete(self) -> None:
        """Nothing more will come: drop them, counted."""
        for simulation in list(self._simulations):
            self._drop_partial(simulation)

    def _peer(self, name: bytes) -> _Peer:
        state = self._peers.get(name)
        if state is None:
            state = self._peers[name] = _Peer(name)
            if len(self._peers) > MAX_PEERS:
                self._peers.popitem(last=False)
        else:
            self._peers.move_to_end(name)
        return state

    def _one(self, state: _Peer, frames: list[bytes]) -> list[list[bytes]]:
        header = UNREAD
        try:
            if not frames:
                raise WireError("message without frames")
            header = unpack(frames[0])
            payload = frames[1] if len(frames) > 1 else b""
            self._envelope.check(header)
            if header.kind is Kind.PIECE:
                state.consumed += len(payload)
                if not self._counted(header):
                    self._metrics.bytes_received.inc(len(payload))
                new = self._piece(state, header, payload)
                s = state.streamed
                state.streamed = Streamed(s.accepted + new, s.duplicates + (not new), s.refused)
                return []
            if header.kind is Kind.BEGIN:
                self._begin(state, header, Begin.unpack(payload))
                return [self._grant(state)]
            if (
                header.kind is Kind.CREDIT
            ):  # a client that has waited long asks whether its connection still is the one it was
                self._stream_of(state, header)
                return [self._grant(state)]
            if header.kind is Kind.INDICES:
                points = self._pieces.size(header.field) // self._pieces.components(header.field)
                self._stream_of(state, header).partition.claim(header, payload, points)
                return []
            if header.kind is Kind.END:
                simulation = self._stream_of(state, header)
                if header.rank >= simulation.ranks:
                    raise Refused(
                        Reason.MALFORMED,
                        f"END of solver rank {header.rank}: simulation {header.simulation} has {simulation.ranks}",
                    )
                simulation.ended.add(header.rank)
                if len(simulation.ended) >= simulation.ranks:
                    self._drop_partial(header.simulation)
                    del self._simulations[header.simulation]
                    self._ended[header.simulation] = simulation.attempt, simulation.ranks
                return [self._envelope.answer(header, Kind.STREAMED, state.streamed.pack())]
            raise WireError(f"{header.kind.name} is not for a trainer rank")
        except (Refused, WireError) as error:
            return self._refuse(state, header, *refusal_of(error))

    def _begin(self, state: _Peer, header: Header, begin: Begin) -> None:
        if not 0 <= header.simulation < self._total:
            raise Refused(
                Reason.UNKNOWN_SIMULATION, f"simulation {header.simulation}: the study has 0 to {self._total - 1}"
            )
        if not 1 <= begin.ranks <= MAX_RANKS:
            raise Refused(Reason.MALFORMED, f"a simulation of {begin.ranks} solver ranks: expected 1 to {MAX_RANKS}")
        if header.rank >= begin.ranks:
            raise Refused(Reason.MALFORMED, f"BEGIN of solver rank {header.rank} of {begin.ranks}")
        if not header.attempt:
            raise Refused(Reason.STALE_ATTEMPT, f"attempt 0 of simulation {header.simulation}: the first is attempt 1")
        seen, seeds = self._schema.spec.parameters, self._schema.seeds
        if len(begin.parameters) != len(seen) + seeds:
            named = f"{', '.join(seen)}{f' and {seeds} seeds' if seeds else ''}"
            raise Refused(Reason.SCHEMA, f"{len(begin.parameters)} parameters, the study has {named}")
        parameters = begin.parameters[: len(seen)]
        if not finite(np.array(parameters)).all():
            raise Refused(Reason.NOT_FINITE, f"simulation {header.simulation} has the parameters {parameters}")
        simulation = self._under_way(header.simulation)
        if header.attempt < simulation.attempt:
            raise Refused(
                Reason.STALE_ATTEMPT,
                f"attempt {header.attempt} of simulation {header.simulation}: {simulation.attempt} is under way",
            )
        if header.attempt > simulation.attempt:
            self._drop_partial(header.simulation)
            simulation = self._simulations[header.simulation] = self._fresh(header.attempt, begin.ranks)
        simulation.senders.add(state.name)
        state.header, state.parameters, state.streamed = header, parameters, NOTHING_STREAMED

    def _fresh(self, attempt: int, ranks: int) -> _Simulation:
        windows = WindowBuilder(self._samples.window, self._samples.stride) if self._samples.window > 1 else None
        return _Simulation(attempt, windows=windows, ranks=ranks)

    def _under_way(self, number: int) -> _Simulation:
        """How a simulation stands. One that has ended and is spoken of again, as when END is repeated, has nothing under way."""
        simulation = self._simulations.get(number)
        if simulation is None:
            simulation = self._simulations[number] = self._fresh(*self._ended.pop(number, (0, 1)))
        return simulation

    def _stream_of(self, state: _Peer, header: Header) -> _Simulation:
        """The simulation of a stream's message, when the message belongs to the stream that is open."""
        opened = state.header
        if opened is None or (opened.simulation, opened.attempt) != (header.simulation, header.attempt):
            raise Refused(Reason.NO_BEGIN, f"{header.kind.name} of simulation {header.simulation} before its BEGIN")
        simulation = self._under_way(header.simulation)
        if header.attempt != simulation.attempt:
            raise Refused(
                Reason.STALE_ATTEMPT,
                f"attempt {header.attempt} of simulation {header.simulation}: {simulation.attempt} is under way",
            )
        return simulation

    def _piece(self, state: _Peer, header: Header, payload: bytes) -> bool:
        """Take one piece; False when it is a duplicate."""
        simulation = self._stream_of(state, header)
        size, values = self._pieces.values(header, payload)
        where = simulation.partition.place(header, self._pieces.components(header.field))
        if (static := self._schema.static(header.field)) is not None:
            return self._static.take(static, size, values, where)
        held_out = header.simulation in self._held_out
        if self._samples.window == 1 or held_out:
            if header.step < simulation.again:
                return True
            ledger = self._sinks.validated if held_out else self._sinks.trained
            if ledger.has(header.simulation, header.step):
                # The piece with the very first element counts for the time step.
                first = where.start if isinstance(where, slice) else where.min()
                if header.field == self._pieces.first_field and first == 0:
                    self._count_duplicate()
                return False
        partial, slot = simulation.partial.get(header.step) or self._open(state, simulation, header, held_out)
        columns = self._pieces.columns(header.field)
        if isinstance(where, slice):
            new = partial.add(columns.start + where.start, values)
        else:
            new = partial.scatter(columns, where, values, header)
        if partial.whole:
            del simulation.partial[header.step]
            self._take(simulation, header, partial, slot, held_out)
        return new

    def _open(
        self, state: _Peer, simulation: _Simulation, header: Header, held_out: bool
    ) -> tuple[PartialStep, Slot | None]:
        """Room for a time step of which the first piece has come."""
        spec = self._schema.spec
        # A solver rank may be ahead of another by what credit lets it have on the way.
        unfinished = len(simulation.partial)
        if unfinished >= UNFINISHED and unfinished * 4 * spec.width > 2 * self._credit * len(simulation.senders):
            raise Refused(
                Reason.MALFORMED,
                f"time step {header.step} while {unfinished} others of simulation {header.simulation} are unfinished: send all fields "
                "of a time step before the next",
            )
        if self._samples.time == "physical" and not abs(header.time) <= LARGEST:
            raise Refused(
                Reason.SCHEMA,
                f'time step {header.step} has the physical time {header.time}: send(step, time, ...) or samples.time = "step"',
            )
        slot = None
        if self._samples.window == 1 and not held_out:
            slot = self._reserve()
            inputs, targets = slot.inputs[0], slot.targets[0]
        else:
            inputs, targets = np.empty(spec.n_inputs, np.float32), np.empty(spec.width, np.float32)
        inputs[:-1] = state.parameters
        inputs[-1] = header.time if self._samples.time == "physical" else header.step
        simulation.partial[header.step] = (PartialStep(inputs, targets), slot)
        return simulation.partial[header.step]

    def _take(
        self, simulation: _Simulation, header: Header, partial: PartialStep, slot: Slot | None, held_out: bool
    ) -> None:
        """A time step is whole: hand it on as a sample, or as part of one."""
        if held_out:
            self._sinks.validated.mark(header.simulation, header.step)
            self._sinks.validation.add(header.simulation, header.step, partial.inputs, partial.targets)
        elif slot is not None:
            self._commit(slot, header, header.step)
        elif simulation.windows is not None:
            for window in simulation.windows.add(header.step, partial.inputs, partial.targets):
                if header.step < simulation.again:
                    continue
                if self._sinks.trained.has(header.simulation, window.index):
                    self._count_duplicate()
                    continue
                slot = self._reserve()
                slot.inputs[:], slot.targets[:] = window.inputs, window.targets
                self._commit(slot, header, window.index)

    def _reserve(self) -> Slot:
        assert self._sinks.buffer is not None  # there are training simulations
        return self._sinks.buffer.reserve()

    def _counted(self, header: Header) -> bool:
        """Whether a checkpoint has counted this time step already, though it comes again."""
        simulation = self._simulations.get(header.simulation)
        return simulation is not None and header.attempt == simulation.attempt and 0 <= header.step < simulation.counted

    def _commit(self, slot: Slot, header: Header, sample: int) -> None:
        slot.simulation, slot.sample = header.simulation, sample
        if not self._counted(header):
            self._sinks.normaliser.update(slot.inputs[None], slot.targets[None])
        if not self._sinks.put(slot):
            raise Refused(Reason.STUDY_OVER, "the study is stopping and wants no more data")
        # Marked only now: what is in the ledger is in the buffer, or has been.
        self._sinks.trained.mark(header.simulation, sample)
        self._metrics.samples_received.inc()

    def _count_duplicate(self) -> None:
        self._metrics.samples_received.inc()
        self._metrics.duplicates_dropped.inc()

    def _drop_partial(self, simulation: int) -> None:
        """Time steps that never became whole are given up and counted."""
        state = self._simulations.get(simulation)
        if state is None:
            return
        for _, slot in state.partial.values():
            self._metrics.incomplete_dropped.inc()
            if slot is not None and self._sinks.buffer is not None:
                self._sinks.buffer.discard(slot)
        state.partial.clear()
        state.senders.clear()

    def _grant(self, state: _Peer) -> list[bytes]:
        assert state.header is not None
        state.granted = state.consumed + self._credit
        return self._envelope.answer(state.header._replace(count=state.granted), Kind.CREDIT)

    def _refuse(self, state: _Peer, header: Header, reason: Reason, text: str) -> list[list[bytes]]:
        s = state.streamed
        if header.kind is Kind.PIECE:
            state.streamed = Streamed(s.accepted, s.duplicates, s.refused + 1)
        refusal = self._envelope.refuse(header, reason, text)
        # Whoever sends on regardless must not fill the server with answers that nobody reads.
        return [] if header.kind is Kind.PIECE and s.refused >= MAX_REFUSALS else [refusal]


def refuse_before_schema(peer: bytes, incarnation: int, metrics: Metrics) -> list[Message]:
    """Refuse a data message that comes before the study's fields are known, and so before there is an Ingest.

    Args:
        peer: routing id of its sender.
        incarnation: of this server.
        metrics: counts the refusal.

    Returns:
        The refusal.
    """
    text = "the study's fields are not known yet: ANNOUNCE to the coordinator first"
    return [(peer, Envelope(incarnation, metrics.refused).refuse(Header(Kind.REFUSE), Reason.NO_BEGIN, text))]
