"""The streams of a trainer rank: what is open on each data connection, and how far each simulation has come."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from penstock_client.errors import Refused
from penstock_client.reasons import Reason
from penstock_client.stream_payloads import Begin
from penstock_client.wire import Header, Kind
from penstock_server.buffer import Slot
from penstock_server.ingest.assembly import PartialStep, WindowBuilder
from penstock_server.ingest.data_connection import NOTHING_STREAMED, DataConnection
from penstock_server.ingest.holdings import Holdings, step_bytes
from penstock_server.ingest.partition import Partition
from penstock_server.ingest.pieces import finite
from penstock_server.ingest.sinks import SimulationIds
from penstock_server.network import MAX_RANKS, Admissions, Assignment
from penstock_server.study import SamplesSection, Schema

MAX_CONNECTIONS = 2**14  # remembered; more than a process may have open. ZeroMQ does not tell when one has gone.


@dataclass(slots=True)
class StreamedSimulation:
    """One simulation from its first BEGIN until all of its solver ranks have said END.

    Attributes:
        attempt: the attempt that is streamed; 0 before the first.
        worker: name of the key for which its memory is counted.
        held: bytes that are counted for it beside its unfinished time steps.
        partial: by time step, those of which pieces are missing, each with its slot in the buffer where it is a sample
            by itself.
        windows: puts time steps together to windows; None where each is a sample by itself.
        ended: solver ranks that have said END.
        ranks: number of solver ranks.
        replayed: number of leading time steps that a checkpoint holds and the client sends again.
        counted: number of leading time steps in the checkpoint's statistics; one more than `replayed` where the sample
            of the last was waiting for room in the buffer.
        senders: connections that have begun the current attempt.
        partition: index lists of its solver ranks.
    """

    attempt: int = 0
    worker: str = ""
    held: int = 0
    partial: dict[int, tuple[PartialStep, Slot | None]] = field(default_factory=dict)
    windows: WindowBuilder | None = None
    ended: set[int] = field(default_factory=set)
    ranks: int = 1
    replayed: int = 0
    counted: int = 0
    senders: set[bytes] = field(default_factory=set)
    partition: Partition = field(default_factory=Partition)


class Streams:
    """Opens and closes streams, and finds the simulation to which a message belongs.

    It belongs to the thread that handles messages; only `incomplete` may be called from another one.

    Args:
        schema: the fields that clients send.
        samples: the study's [samples].
        ids: which simulations there are, and which of them are held out.
        on_incomplete: called with the slot, if any, of each time step that is given up because pieces of it are
            missing.
        admissions: what the coordinator has assigned; None: everything is taken.
        limit: bytes that the clients of one key may make this rank hold; None: any number.

    Attributes:
        holdings: bytes held for each key.
    """

    def __init__(
        self,
        schema: Schema,
        samples: SamplesSection,
        ids: SimulationIds,
        on_incomplete: Callable[[Slot | None], None],
        admissions: Admissions | None = None,
        limit: int | None = None,
    ) -> None:
        self.holdings = Holdings(limit)
        self._step_bytes = step_bytes(schema)
        self._schema = schema
        self._samples = samples
        self._ids = ids
        self._on_incomplete = on_incomplete
        self._admissions = admissions
        self._connections: OrderedDict[bytes, DataConnection] = OrderedDict()  # the longest silent first
        self._simulations: dict[int, StreamedSimulation] = {}
        self._ended: dict[int, tuple[int, int]] = {}  # attempt and solver ranks of each simulation that has ended

    def connection(self, peer: bytes, worker: str = "") -> DataConnection:
        """Return the connection with this routing id and key, making an entry for a new one."""
        connection = self._connections.get(peer)
        if connection is None or connection.worker != worker:
            connection = self._connections[peer] = DataConnection(peer, worker)
            if len(self._connections) > MAX_CONNECTIONS:
                self._connections.popitem(last=False)
        else:
            self._connections.move_to_end(peer)
        return connection

    def begin(self, connection: DataConnection, header: Header, begin: Begin) -> None:
        """Open a simulation's stream on a connection.

        Args:
            connection: over which BEGIN came.
            header: of BEGIN.
            begin: its payload.

        Raises:
            Refused: there is no such simulation or solver rank, the attempt is not the current one, or the parameters
                do not fit.
        """
        number = header.simulation
        if not 0 <= number < self._ids.total:
            raise Refused(Reason.UNKNOWN_SIMULATION, f"simulation {number}: the study has 0 to {self._ids.total - 1}")
        if not 1 <= begin.ranks <= MAX_RANKS:
            raise Refused(Reason.MALFORMED, f"a simulation of {begin.ranks} solver ranks: expected 1 to {MAX_RANKS}")
        if header.rank >= begin.ranks:
            raise Refused(Reason.MALFORMED, f"BEGIN of solver rank {header.rank} of {begin.ranks}")
        if not header.attempt:
            raise Refused(Reason.STALE_ATTEMPT, f"attempt 0 of simulation {number}: the first is attempt 1")
        if self._admissions is not None:
            self._admissions.check(header, connection.worker)
        parameters = self._parameters(number, begin.parameters)
        known = self._simulations.get(number)
        attempt = self._ended.get(number, (0, 1))[0] if known is None else known.attempt
        if header.attempt < attempt:
            raise _stale(header, attempt)
        if header.attempt > attempt:
            self._forget(number)
            simulation = self._open(number, header.attempt, begin.ranks, connection.worker)
        else:
            simulation = self._simulation(number, connection.worker)
        self._leave(connection, number)
        simulation.senders.add(connection.peer)
        connection.stream, connection.parameters, connection.streamed = header, parameters, NOTHING_STREAMED

    def current(self, connection: DataConnection, header: Header) -> StreamedSimulation:
        """Return the simulation of a stream's message.

        Args:
            connection: over which the message came.
            header: of the message.

        Raises:
            Refused: the message does not belong to the stream that is open on the connection, or that is of an old
                attempt.
        """
        stream = connection.stream
        if stream is None or (stream.simulation, stream.attempt) != (header.simulation, header.attempt):
            raise Refused(Reason.NO_BEGIN, f"{header.kind.name} of simulation {header.simulation} before its BEGIN")
        if self._admissions is not None:
            self._admissions.check(header, connection.worker)
        simulation = self._simulation(header.simulation, connection.worker)
        if header.attempt != simulation.attempt:
            raise _stale(header, simulation.attempt)
        return simulation

    def hold_step(self, simulation: StreamedSimulation) -> int:
        """Count a time step of which the first piece has come; return its bytes.

        Args:
            simulation: to which it belongs.

        Raises:
            Refused: the simulation's key would hold more than it may.
        """
        self.holdings.take(simulation.worker, self._step_bytes)
        return self._step_bytes

    def hold(self, simulation: StreamedSimulation, size: int) -> None:
        """Count `size` bytes for a simulation, until it ends.

        Raises:
            Refused: its key would hold more than it may.
        """
        self.holdings.take(simulation.worker, size)
        simulation.held += size

    def end(self, connection: DataConnection, header: Header) -> None:
        """Note the END of a solver rank; with the last one the simulation's stream is over.

        Args:
            connection: over which END came.
            header: of END.

        Raises:
            Refused: as `current`, or there is no such solver rank.
        """
        simulation = self.current(connection, header)
        if header.rank >= simulation.ranks:
            raise Refused(
                Reason.MALFORMED,
                f"END of solver rank {header.rank}: simulation {header.simulation} has {simulation.ranks}",
            )
        simulation.ended.add(header.rank)
        if len(simulation.ended) >= simulation.ranks:
            self._close(header.simulation)

    def resume(self, simulation: int, attempt: int, steps: int, *, counted: int) -> None:
        """See `Ingest.take_up`."""
        state = self._open(simulation, attempt, 1, "")
        state.replayed, state.counted = steps, counted

    def release(self, assignment: Assignment) -> None:
        """See `Ingest.release`."""
        simulation = self._simulations.get(assignment.simulation)
        if simulation is not None and simulation.attempt <= assignment.attempt:
            self._forget(assignment.simulation)

    def is_late(self, connection: DataConnection, header: Header) -> bool:
        """Return whether a message was under way when its attempt ended, as those of a failed simulation are."""
        return (
            header.kind is not Kind.BEGIN
            and self._admissions is not None
            and self._admissions.is_over(header, connection.worker)
        )

    def is_counted(self, header: Header) -> bool:
        """Return whether a checkpoint's statistics hold the time step of a piece that is sent again."""
        simulation = self._simulations.get(header.simulation)
        return simulation is not None and header.attempt == simulation.attempt and 0 <= header.step < simulation.counted

    def incomplete(self) -> int:
        """Return the number of time steps of which pieces are missing. Any thread may ask."""
        return sum(len(simulation.partial) for simulation in list(self._simulations.values()))

    def drop_all_incomplete(self) -> None:
        """Give up all time steps of which pieces are missing."""
        for number in list(self._simulations):
            self._drop_incomplete(number)

    def _leave(self, connection: DataConnection, number: int) -> None:
        """Give up what is incomplete of the simulation that a client has left without END for another one."""
        left = connection.stream
        if left is None or left.simulation == number:
            return
        simulation = self._simulations.get(left.simulation)
        if simulation is not None and simulation.attempt == left.attempt and left.rank not in simulation.ended:
            if simulation.ranks == 1:  # nothing more can come
                self._close(left.simulation)
            else:
                self._drop_incomplete(left.simulation)

    def _parameters(self, number: int, parameters: tuple[float, ...]) -> tuple[float, ...]:
        """Return those of a simulation's parameters that the model sees."""
        seen, seeds = self._schema.spec.parameters, self._schema.seeds
        if len(parameters) != len(seen) + seeds:
            named = f"{', '.join(seen)}{f' and {seeds} seeds' if seeds else ''}"
            raise Refused(Reason.SCHEMA, f"{len(parameters)} parameters, the study has {named}")
        parameters = parameters[: len(seen)]
        if not finite(np.array(parameters)).all():
            raise Refused(Reason.NOT_FINITE, f"simulation {number} has the parameters {parameters}")
        return parameters

    def _simulation(self, number: int, worker: str) -> StreamedSimulation:
        """Return a simulation's entry; a new one where it has ended and is named again, as when END is repeated."""
        simulation = self._simulations.get(number)
        return simulation or self._open(number, *self._ended.get(number, (0, 1)), worker)

    def _open(self, number: int, attempt: int, ranks: int, worker: str) -> StreamedSimulation:
        """Make the entry of a simulation; its window of time steps is counted at once."""
        simulation = StreamedSimulation(attempt, worker, ranks=ranks)
        window = self._samples.window
        if window > 1 and number not in self._ids.held_out_ids:
            self.hold(simulation, window * self._step_bytes)
            simulation.windows = WindowBuilder(window, self._samples.stride)
        self._ended.pop(number, None)
        self._simulations[number] = simulation
        return simulation

    def _close(self, number: int) -> None:
        """Give back what is held for a simulation that has ended; remember its attempt."""
        simulation = self._simulations[number]
        self._forget(number)
        self._ended[number] = simulation.attempt, simulation.ranks

    def _forget(self, number: int) -> None:
        """Give back everything that is held for a simulation."""
        self._drop_incomplete(number)
        simulation = self._simulations.pop(number, None)
        if simulation is not None:
            self.holdings.give_back(simulation.worker, simulation.held)

    def _drop_incomplete(self, number: int) -> None:
        simulation = self._simulations.get(number)
        if simulation is None:
            return
        for partial, slot in simulation.partial.values():
            self.holdings.give_back(simulation.worker, partial.held)
            self._on_incomplete(slot)
        simulation.partial.clear()
        simulation.senders.clear()


def _stale(header: Header, attempt: int) -> Refused:
    return Refused(
        Reason.STALE_ATTEMPT,
        f"attempt {header.attempt} of simulation {header.simulation}: {attempt} is under way",
    )
