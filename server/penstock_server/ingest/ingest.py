"""A trainer rank's ingest, without sockets and threads: takes pieces and puts samples into the buffer.

`Ingest.handle` takes one message of one connection and returns the messages to send. It never raises for what a client
sent: bad input costs that message, which is refused and counted.
"""

from __future__ import annotations

import numpy as np

from penstock_client.errors import Refused, WireError
from penstock_client.reasons import Reason
from penstock_client.stream_payloads import Begin, Share
from penstock_client.wire import Header, Kind, take_reference_bit, unpack
from penstock_server.buffer import Slot
from penstock_server.ingest.assembly import PartialStep
from penstock_server.ingest.client_memories import ClientMemories
from penstock_server.ingest.data_connection import DataConnection
from penstock_server.ingest.holdings import LIST_BYTES, STRETCH_BYTES, UNFINISHED
from penstock_server.ingest.partition import Where
from penstock_server.ingest.pieces import Pieces
from penstock_server.ingest.sinks import SampleSinks, SimulationIds
from penstock_server.ingest.static_fields import StaticFields
from penstock_server.ingest.steps import WholeSteps
from penstock_server.ingest.streams import StreamedSimulation, Streams
from penstock_server.network import Admissions, Assignment, Envelope, Frames, Message, refusal_of
from penstock_server.study import SamplesSection, Schema
from penstock_server.telemetry import Metrics

MAX_REFUSALS = 100  # answered one by one in a stream; STREAMED counts all
DATA = (Kind.PIECE, Kind.BLOCK)
UNREAD = Header(Kind.PIECE)  # stands for the header of a message whose own cannot be read


class Ingest:
    """Turns the pieces that a trainer rank receives into samples.

    One thread handles messages; `incomplete` may be called from any.

    Args:
        schema: the fields that clients send.
        samples: the study's [samples]: what time steps are made into.
        ids: which simulations there are, and which of them are held out.
        sinks: where samples, held-out time steps and static fields go.
        incarnation: of this run of the server; messages of another one are refused.
        credit: bytes that a client may have under way.
        metrics: of this process.
        admissions: what the coordinator has assigned; None: everything is taken, where there is no coordinator.
        limit: bytes that the clients of one key may make this rank hold outside the buffer; None: any number.
        shared_memory: whether payloads may be in memory of clients on this node.
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
        admissions: Admissions | None = None,
        limit: int | None = None,
        shared_memory: bool = True,
    ) -> None:
        self._schema = schema
        self._samples = samples
        self._sinks = sinks
        self._envelope = Envelope(incarnation, metrics.refused)
        self._credit = credit
        self._metrics = metrics
        self._pieces = Pieces(schema)
        self._steps = WholeSteps(schema, samples, ids, sinks, metrics)
        self._streams = Streams(schema, samples, ids, self._drop, admissions, limit)
        self._static = StaticFields(sinks.on_static)
        self._memories = ClientMemories(enabled=shared_memory, credit=credit, metrics=metrics)

    def handle(self, peer: bytes, frames: Frames, now: float = 0.0, worker: str = "") -> list[Message]:  # noqa: ARG002 - a Handler
        """Deal with one message; blocks while the buffer has no room.

        Args:
            peer: routing id of the connection it came over.
            frames: header and payload in turn; several pieces may come in one message.
            now: seconds on the monotonic clock; not used.
            worker: name of the key with which the sender is connected.

        Returns:
            The messages to send.
        """
        connection = self._streams.connection(peer, worker)
        out: list[list[bytes]] = []
        if frames and len(frames) % 2 and len(frames) > 1:
            out.append(
                self._envelope.refuse(
                    UNREAD, Reason.MALFORMED, f"{len(frames)} frames: expected header and payload in turn"
                )
            )
            frames = frames[:-1]
        for i in range(0, max(1, len(frames)), 2):
            out += self._handle_pair(connection, frames[i : i + 2])
        if connection.needs_credit(self._credit):
            out.append(self._grant(connection))
        return [(peer, reply) for reply in out]

    def take_up(self, simulation: int, attempt: int, steps: int, *, counted: int) -> None:
        """Continue an attempt that was under way at a checkpoint and whose client sends its time steps again.

        Call it before the attempt's BEGIN.

        Args:
            simulation: its id.
            attempt: its number.
            steps: number of leading time steps dealt with before the checkpoint; they are skipped, or only complete
                later windows.
            counted: number of leading time steps in the checkpoint's statistics.
        """
        self._streams.resume(simulation, attempt, steps, counted=counted)

    def release(self, assignment: Assignment) -> None:
        """Give back what is held for an attempt that has ended at the coordinator."""
        self._streams.release(assignment)

    def tick(self) -> None:
        """Give back the memory of clients that have gone; called about once a second on the thread of `handle`."""
        self._memories.give_back()

    def incomplete(self) -> int:
        """Return the number of time steps of which pieces are missing."""
        return self._streams.incomplete()

    def give_up_incomplete(self) -> None:
        """Drop and count the time steps of which pieces are missing, when nothing more will come."""
        self._streams.drop_all_incomplete()

    def _handle_pair(self, connection: DataConnection, frames: Frames) -> list[list[bytes]]:
        """Deal with one header and its payload; return the answers."""
        header = UNREAD
        try:
            if not frames:
                raise WireError("message without frames")
            frame, by_reference = take_reference_bit(bytes(frames[0]))
            header = unpack(frame)
            payload = frames[1] if len(frames) > 1 else b""
            self._envelope.check(header)
            if by_reference:
                payload = self._payload_of(connection, header, payload)
            if header.kind in DATA:
                connection.consumed += len(payload)
                if not self._streams.is_counted(header):
                    times = 8 * (header.count - 1) if header.kind is Kind.BLOCK else 0
                    self._metrics.bytes_received.inc(max(0, len(payload) - times))
                take = self._take_piece if header.kind is Kind.PIECE else self._take_block
                connection.count_piece(new=take(connection, header, payload))
                return []
            return self._handle_request(connection, header, payload)
        except (Refused, WireError) as error:
            return self._refuse(connection, header, *refusal_of(error))

    def _payload_of(
        self, connection: DataConnection, header: Header, reference: bytes | memoryview
    ) -> bytes | memoryview:
        """Return the payload that a message refers to.

        Its client may change it while it is checked: pieces are copied here, and blocks before they are looked at.
        """
        if header.kind not in DATA:
            raise WireError(f"{header.kind.name} with a reference to shared memory: expected its payload")
        payload = self._memories.read(connection, bytes(reference))
        return bytes(payload) if header.kind is Kind.PIECE else payload

    def _handle_request(
        self, connection: DataConnection, header: Header, payload: bytes | memoryview
    ) -> list[list[bytes]]:
        if header.kind is Kind.SHARE:
            taken = self._memories.take(connection, Share.unpack(payload))
            return [self._envelope.answer(header._replace(count=int(taken)), Kind.SHARED)]
        if header.kind is Kind.BEGIN:
            self._streams.begin(connection, header, Begin.unpack(payload))
            return [self._grant(connection)]
        if header.kind is Kind.CREDIT:  # a client that has waited long asks whether the rank still knows its stream
            self._streams.current(connection, header)
            return [self._grant(connection)]
        if header.kind is Kind.INDICES:
            self._take_index_list(self._streams.current(connection, header), header, payload)
            return []
        if header.kind is Kind.END:
            self._streams.end(connection, header)
            return [self._envelope.answer(header, Kind.STREAMED, connection.streamed.pack())]
        raise WireError(
            f"{header.kind.name} was sent to a trainer rank: expected SHARE, BEGIN, INDICES, PIECE, BLOCK, CREDIT or END there"
        )

    def _take_index_list(self, simulation: StreamedSimulation, header: Header, payload: bytes | memoryview) -> None:
        points = self._pieces.size(header.field) // self._pieces.components(header.field)
        if not simulation.partition.has_list(header):  # kept as 8 bytes a point, with a mask of the field's points
            self._streams.hold(simulation, 2 * len(payload) + points + LIST_BYTES)
        simulation.partition.claim(header, payload, points, self._pieces.name(header.field))

    def _take_piece(self, connection: DataConnection, header: Header, payload: bytes | memoryview) -> bool:
        """Take one piece; return False when it is a duplicate."""
        simulation = self._streams.current(connection, header)
        size, values = self._pieces.values(header, payload)
        where = simulation.partition.place(
            header, self._pieces.components(header.field), self._pieces.name(header.field)
        )
        if (static := self._schema.static(header.field)) is not None:
            return self._static.take(static, size, values, where)
        if arrived := self._steps.arrived(simulation, header.simulation, header.step):
            return self._drop_duplicate(header, where)
        if arrived is None:
            return True
        partial, slot = simulation.partial.get(header.step) or self._open_step(connection, simulation, header)
        columns, stretches = self._pieces.columns(header.field), partial.stretches
        if isinstance(where, slice):
            new = partial.add(columns.start + where.start, values)
        else:
            new = partial.scatter(columns, where, values, header)
        if partial.whole:
            del simulation.partial[header.step]
            self._streams.holdings.give_back(simulation.worker, partial.held)
            self._steps.take(simulation, header, partial.inputs, partial.targets, slot)
        elif partial.stretches > stretches:
            self._streams.holdings.take(simulation.worker, STRETCH_BYTES)
            partial.held += STRETCH_BYTES
        return new

    def _take_block(self, connection: DataConnection, header: Header, payload: bytes | memoryview) -> bool:
        """Take a run of whole time steps; return False when all are duplicates."""
        simulation = self._streams.current(connection, header)
        if simulation.ranks > 1 or simulation.partial or simulation.partition.listed:
            raise Refused(
                Reason.MALFORMED,
                f"whole time steps of simulation {header.simulation}, which has {simulation.ranks} solver ranks and "
                f"{len(simulation.partial)} unfinished time steps: send the pieces of all solver ranks",
            )
        block = self._steps.layout.read(header, payload)
        return self._steps.take_block(simulation, header, connection.parameters, block)

    def _drop_duplicate(self, header: Header, where: Where) -> bool:
        """Count a time step that has arrived before; of its pieces, the one with the very first element counts it."""
        first = where.start if isinstance(where, slice) else where.min()
        if header.field == self._pieces.first_field and first == 0:
            self._steps.count_duplicates(1)
        return False

    def _open_step(
        self, connection: DataConnection, simulation: StreamedSimulation, header: Header
    ) -> tuple[PartialStep, Slot | None]:
        """Make room for a time step of which the first piece has come."""
        spec = self._schema.spec
        # One solver rank may be ahead of another by as much as credit lets it have under way.
        unfinished = len(simulation.partial)
        if unfinished >= UNFINISHED and unfinished * 4 * spec.width > 2 * self._credit * len(simulation.senders):
            raise Refused(
                Reason.MALFORMED,
                f"time step {header.step} while {unfinished} others of simulation {header.simulation} are "
                "unfinished: send all fields "
                "of a time step before the next",
            )
        self._steps.check_time(header)
        held = self._streams.hold_step(simulation)
        slot = None
        if self._steps.are_samples(header.simulation):
            slot = self._steps.reserve()
            inputs, targets = slot.inputs[0], slot.targets[0]
        else:
            inputs, targets = np.empty(spec.n_inputs, np.float32), np.empty(spec.width, np.float32)
        self._steps.inputs(inputs, connection.parameters, header)
        simulation.partial[header.step] = (PartialStep(inputs, targets, held), slot)
        return simulation.partial[header.step]

    def _drop(self, slot: Slot | None) -> None:
        """Count a time step that never became whole and free its slot."""
        self._metrics.incomplete_dropped.inc()
        if slot is not None and self._sinks.buffer is not None:
            self._sinks.buffer.discard(slot)

    def _grant(self, connection: DataConnection) -> list[bytes]:
        return self._envelope.answer(connection.grant(self._credit), Kind.CREDIT)

    def _refuse(self, connection: DataConnection, header: Header, reason: Reason, text: str) -> list[list[bytes]]:
        if self._streams.is_late(connection, header):
            self._metrics.late_dropped.inc()
            refusal = self._envelope.refusal(header, reason, text)
        else:
            refusal = self._envelope.refuse(header, reason, text)
        # A client that goes on sending bad pieces must not fill the server with refusals that it does not read.
        if header.kind in DATA and connection.count_refused_piece() >= MAX_REFUSALS:
            return []
        return [refusal]


def refuse_before_schema(peer: bytes, incarnation: int, metrics: Metrics) -> list[Message]:
    """Refuse a data message that comes before the study's fields are known, and so before there is an Ingest.

    Args:
        peer: routing id of the connection it came over.
        incarnation: of this run of the server.
        metrics: counts the refusal.

    Returns:
        The refusal.
    """
    text = "the study's fields are not known yet: ANNOUNCE to the coordinator first"
    return [(peer, Envelope(incarnation, metrics.refused).refuse(Header(Kind.REFUSE), Reason.NO_BEGIN, text))]
