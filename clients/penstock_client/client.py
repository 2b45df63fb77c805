"""The client: a loop over the simulations that the server hands out, or the one simulation a solver was started for."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from penstock_client.communicator import Communicator, share
from penstock_client.connect_file import read_connect_file
from penstock_client.control import Control
from penstock_client.errors import ConnectError, PenstockError, Refused, ServerLost, WireError
from penstock_client.heartbeat import Heartbeat
from penstock_client.payloads import Assign, Finish, Hello, Outcome
from penstock_client.simulation import Simulation
from penstock_client.stream import Stream
from penstock_client.transport import Transport
from penstock_client.wire import ANY_SIMULATION, Header, Kind
from penstock_client.zmq_transport import ZmqTransport

SIMULATION_VARIABLE = "PENSTOCK_SIMULATION"
ATTEMPT_VARIABLE = "PENSTOCK_ATTEMPT"
SUSPICIOUS = 3  # heartbeats without an answer after which connect.json is looked at: has the server been restarted?
LOOK = 1.0  # seconds between two such looks


class Client:
    """A solver's connection to the server.

    A worker serves simulation after simulation:

        with Client() as client:
            for simulation in client.simulations():
                for step, temperature in enumerate(solve(**simulation.parameters)):
                    simulation.send(step, T=temperature)

    A solver started for one simulation (PENSTOCK_SIMULATION is set) asks for just that one with `client.simulation()`.

    Args:
        connect: path of connect.json; default: where PENSTOCK_CONNECT points.
        timeout: seconds to wait for the server's first answer.
        comm: mpi4py communicator of a solver whose ranks each send their own part, such as MPI.COMM_WORLD. All ranks then make a
            client and ask for simulations together. Leaving the `with` block by an exception on one rank reports the simulation as
            failed and ends all of them (`comm.Abort`): they may be waiting for each other anywhere.
        rank, ranks: in place of `comm`, this process's MPI rank and their number.
        transport, control, incarnation: for the inline engine and tests, in place of `connect`.

    Attributes:
        welcome: what the server has told. incarnation: which of the server's lives this client belongs to.

    Raises:
        ConnectError: no usable connect.json, or nobody answers within `timeout`.
        ServerLost: connect.json has been written anew meanwhile, by a server that was restarted.
        Refused: the connect.json belongs to an earlier incarnation of the server.
    """

    def __init__(
        self,
        connect: str | Path | None = None,
        *,
        timeout: float = 30.0,
        comm: Communicator | None = None,
        rank: int = 0,
        ranks: int = 1,
        transport: Transport | None = None,
        control: str = "control",
        incarnation: int = 1,
    ) -> None:
        self._connect, self._watches = connect, transport is None
        if transport is None:
            info = read_connect_file(connect)
            transport, control, incarnation = ZmqTransport(info), info.control, info.incarnation
        if comm is not None:
            rank, ranks = comm.Get_rank(), comm.Get_size()
        self._comm = comm if ranks > 1 else None
        self._current: Simulation | None = None
        self._transport = transport
        self._ranks = ranks
        self.incarnation = incarnation
        self._base = Header(Kind.HELLO, incarnation, ANY_SIMULATION, rank=rank)
        self._id = secrets.token_bytes(16)
        self._looked = 0.0
        self._lost = False  # nothing can be delivered any more
        self._streams: list[Stream] = []
        self._heartbeat: Heartbeat | None = None
        hello = Hello(self._id, os.getpid(), socket.gethostname())
        self._control = Control(transport.connect(control, control=True), self._base, hello)
        try:
            self.welcome = self._control.hello(control, timeout, self._look_for_another_server)
            if self.welcome.heartbeat_ms:
                self._heartbeat = Heartbeat(
                    transport.connect(control, control=True),
                    self._id,
                    incarnation,
                    self.welcome.heartbeat_ms / 1000,
                    self.welcome.server_timeout_ms / 1000,
                )
                self._heartbeat.start()
            self._streams = [
                Stream(transport.connect(endpoint), self.welcome, self._check)
                for endpoint in self.welcome.rank_endpoints
            ]
        except BaseException:
            self._lost = True
            self.close()
            raise

    def simulations(self) -> Iterator[Simulation]:
        """Simulation after simulation until the study has none left; the one before is finished when the next is asked for."""
        while (simulation := self.next_simulation()) is not None:
            yield simulation
            simulation.finish()

    def next_simulation(self) -> Simulation | None:
        """Whichever simulation is due, waiting for one; None when the study has none left."""
        return self._together(lambda: self._next(ANY_SIMULATION, 0))

    def simulation(self) -> Simulation:
        """The one simulation this process was started for (PENSTOCK_SIMULATION, PENSTOCK_ATTEMPT); finish it yourself.

        Raises:
            ConnectError: the variables are not set: the process was not started by a Penstock worker.
        """
        try:
            wanted = int(os.environ[SIMULATION_VARIABLE]), int(os.environ[ATTEMPT_VARIABLE])
        except (KeyError, ValueError) as error:
            raise ConnectError(
                f"{SIMULATION_VARIABLE} and {ATTEMPT_VARIABLE} are not set to numbers ({error}): a worker sets them for a "
                "solver it starts; a solver that runs on its own uses client.simulations()"
            ) from error
        simulation = self._together(lambda: self._next(*wanted))
        if simulation is None:
            raise ConnectError(f"the study has ended; simulation {wanted[0]} is not wanted any more")
        return simulation

    def leave(self) -> None:
        """Tell the server that this client goes: whatever it holds, or is about to be given, is no failure, and handed out again."""
        blocked = sum(stream.blocked_seconds for stream in self._streams)
        finish = Finish(Outcome.RETURNED, self._ranks, 0, "", blocked)
        self._control.ask(self._base._replace(kind=Kind.FINISH), finish.pack(), self._check_server)

    def close(self) -> None:
        """Close every connection; a simulation that is not finished is handed out again by the server."""
        deliver = not self._lost
        if self._heartbeat is not None:
            self._heartbeat.close()
        for stream in self._streams:
            stream.close(deliver=deliver)
        self._control.close(deliver=deliver)
        self._transport.close(deliver=deliver)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or self._comm is None:
            self.close()
            return
        traceback.print_exception(error)
        if self._current is not None and not self._current.over:
            with suppress(PenstockError):
                self._current.fail(f"MPI rank {self._comm.Get_rank()}: {type(error).__name__}: {error}")
        self.close()
        sys.stderr.flush()
        self._comm.Abort(1)

    def _together(self, ask: Callable[[], Simulation | None]) -> Simulation | None:
        """What rank 0 is given, on every rank."""
        self._current = ask() if self._comm is None else share(self._comm, ask, self._next)
        return self._current

    def _next(self, wanted: int, attempt: int) -> Simulation | None:
        self._serve(ANY_SIMULATION, 0)
        header = self._base._replace(kind=Kind.NEXT, simulation=wanted, attempt=attempt)
        answer, payload = self._control.ask(header, b"", self._check_server)
        if answer.kind is Kind.NO_MORE:
            return None
        if answer.kind is not Kind.ASSIGN:
            raise WireError(f"{answer.kind.name} in answer to NEXT")
        assign, names = Assign.unpack(payload), self.welcome.parameters
        if len(assign.parameters) != len(names) or answer.simulation < 0:
            raise WireError(
                f"ASSIGN of simulation {answer.simulation} has {len(assign.parameters)} parameters, WELCOME named {len(names)}"
            )
        self._serve(answer.simulation, answer.attempt)
        return Simulation(
            self._base._replace(simulation=answer.simulation, attempt=answer.attempt),
            dict(zip(names, assign.parameters, strict=True)),
            validation=assign.validation,
            ranks=self._ranks,
            welcome=self.welcome,
            streams=self._streams,
            request=self._request,
            check=self._check,
        )

    def _request(self, header: Header, payload: bytes, expected: Kind) -> bytes:
        # That a simulation is not wanted any more does not keep its end from being reported.
        check = self._check_server if header.kind is Kind.FINISH else self._check
        try:
            answer, body = self._control.ask(header, payload, check)
        finally:
            if header.kind is Kind.FINISH:
                self._serve(ANY_SIMULATION, 0)
        if answer.kind is not expected:
            raise WireError(f"{answer.kind.name} in answer to {header.kind.name}, expected {expected.name}")
        return body

    def _serve(self, simulation: int, attempt: int) -> None:
        if self._heartbeat is not None:
            self._heartbeat.serve(simulation, attempt)

    def _check(self) -> None:
        """Raise what has made it pointless to go on with the current simulation."""
        self._check_server()
        if self._heartbeat is not None:
            self._heartbeat.check_wanted()

    def _check_server(self) -> None:
        """Raise when the server is gone, or does not want this client."""
        if self._heartbeat is None:
            return
        try:
            self._heartbeat.check_server()
            if self._heartbeat.silent() > SUSPICIOUS * self.welcome.heartbeat_ms / 1000:
                self._look_for_another_server()
        except (Refused, ServerLost):
            self._lost = True
            raise

    def _look_for_another_server(self) -> None:
        """A server that has been restarted has written connect.json anew; the one before will not answer any more."""
        now = time.monotonic()
        if not self._watches or now - self._looked < LOOK:
            return
        self._looked = now
        try:
            incarnation = read_connect_file(self._connect).incarnation
        except ConnectError:
            return  # being written, or gone with its study: the heartbeat's time-out decides
        if incarnation != self._base.incarnation:
            raise ServerLost(f"the server has been restarted (as incarnation {incarnation}): connect anew")
