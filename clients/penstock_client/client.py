"""The client of a solver: a loop over the simulations that the server assigns, or the one it was started for."""

from __future__ import annotations

import math
import os
import secrets
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from penstock_client.communicator import Communicator, share
from penstock_client.connect_file import read_connect_file
from penstock_client.control import Control
from penstock_client.errors import Abandoned, ConnectError, PenstockError, Refused, ServerLost, WireError
from penstock_client.heartbeat import Heartbeat
from penstock_client.payloads import Assign, Finish, Hello, Outcome
from penstock_client.reasons import Reason
from penstock_client.simulation import Simulation
from penstock_client.stream import Stream
from penstock_client.transport import Transport
from penstock_client.wire import ANY_SIMULATION, Header, Kind
from penstock_client.zmq_transport import ZmqTransport

SIMULATION_VARIABLE = "PENSTOCK_SIMULATION"
ATTEMPT_VARIABLE = "PENSTOCK_ATTEMPT"
UNANSWERED = 3  # heartbeats without an answer after which connect.json is read again: the server may have restarted
REREAD_SECONDS = 1.0  # between two readings of connect.json
REPORT_SECONDS = 5.0  # to wait for the server to take note of an exception


class Client:
    """A solver's connection to the server.

    A worker runs simulation after simulation:

        with Client() as client:
            for simulation in client.simulations():
                for step, temperature in enumerate(solve(**simulation.parameters)):
                    simulation.send(step, T=temperature)

    A solver that was started for one simulation (PENSTOCK_SIMULATION is set) calls `client.simulation()` instead.

    An exception that leaves the `with` block reports the simulation as failed, with the exception's text. If the study
    does not want the simulation any more, or the user interrupts the program, the simulation is handed back.

    Args:
        connect: path of connect.json; default: the value of PENSTOCK_CONNECT.
        timeout: seconds to wait for the server's first answer.
        comm: mpi4py communicator, such as MPI.COMM_WORLD, of a solver whose ranks each send their own part. All ranks
            then make a client and ask for simulations together. An exception that leaves the `with` block on one rank
            also ends all ranks (`comm.Abort`), because the others may be waiting in any MPI call.
        rank: this process's MPI rank, in place of `comm`.
        ranks: number of MPI ranks, in place of `comm`.
        transport: makes the connections; in place of `connect`, for the inline engine and tests.
        control: the coordinator's endpoint, with `transport`.
        incarnation: the server's incarnation, with `transport`.

    Attributes:
        welcome: settings of the study, as the server sent them.
        incarnation: the server's incarnation that this client belongs to.

    Raises:
        ConnectError: there is no usable connect.json, or the server does not answer within `timeout`.
        ServerLost: a restarted server has replaced connect.json while this client was connecting.
        Refused: connect.json belongs to an earlier incarnation of the server.
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
        self._connect, self._rereads = connect, transport is None
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
        self._reread_at = 0.0
        self._report_until = math.inf
        self._lost = False  # True once nothing can be delivered any more
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
                Stream(transport.connect(endpoint), self.welcome, self._check, share_memory=self._rereads)
                for endpoint in self.welcome.rank_endpoints
            ]
        except BaseException:
            self._lost = True
            self.close()
            raise

    def simulations(self) -> Iterator[Simulation]:
        """Iterate over simulations until the study has none left.

        Each simulation is reported as finished when the next one is asked for.

        Yields:
            The next simulation.
        """
        while (simulation := self.next_simulation()) is not None:
            yield simulation
            simulation.finish()

    def next_simulation(self) -> Simulation | None:
        """Wait for the next simulation that the server assigns.

        Returns:
            The simulation, or None when the study has none left.
        """
        return self._together(lambda: self._next(ANY_SIMULATION, 0))

    def simulation(self) -> Simulation:
        """Take the simulation that this process was started for (PENSTOCK_SIMULATION, PENSTOCK_ATTEMPT).

        Returns:
            The simulation; the caller must call its `finish`.

        Raises:
            ConnectError: the variables are not set, because no Penstock worker started the process; or the study has
                ended.
        """
        try:
            wanted = int(os.environ[SIMULATION_VARIABLE]), int(os.environ[ATTEMPT_VARIABLE])
        except (KeyError, ValueError) as error:
            raise ConnectError(
                f"{SIMULATION_VARIABLE} and {ATTEMPT_VARIABLE} are not set to numbers ({error}): a worker sets them "
                "for a solver it starts; a solver that runs on its own uses client.simulations()"
            ) from error
        simulation = self._together(lambda: self._next(*wanted))
        if simulation is None:
            raise ConnectError(f"the study has ended; simulation {wanted[0]} is not wanted any more")
        return simulation

    def silent(self) -> float:
        """Return the seconds since the server last answered a heartbeat; 0 where none are sent."""
        return 0.0 if self._heartbeat is None else self._heartbeat.silent()

    def leave(self) -> None:
        """Tell the server that this client is leaving.

        Its simulation is handed out again and does not count as failed.
        """
        blocked = sum(stream.blocked_seconds for stream in self._streams)
        finish = Finish(Outcome.RETURNED, self._ranks, 0, "", blocked)
        self._control.ask(self._base._replace(kind=Kind.FINISH), finish.pack(), self._check_server)

    def close(self) -> None:
        """Close all connections. The server hands an unfinished simulation out again."""
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
        if error is not None and self._comm is not None:
            traceback.print_exception(error)
        if error is not None and self._current is not None and not self._current.over and not self._lost:
            try:
                self._report(self._current, error)
            except PenstockError as unreported:
                print(f"penstock: the failure could not be reported to the server: {unreported}", file=sys.stderr)
        self.close()
        if error is not None and self._comm is not None:
            sys.stderr.flush()
            self._comm.Abort(1)

    def _report(self, simulation: Simulation, error: BaseException) -> None:
        """Report a simulation that an exception has ended, without waiting long for a server that is silent."""
        self._report_until = time.monotonic() + REPORT_SECONDS
        unwanted = isinstance(error, Abandoned) or (isinstance(error, Refused) and error.reason is Reason.STUDY_OVER)
        if unwanted or isinstance(error, KeyboardInterrupt):
            simulation.hand_back()
            return
        rank = "" if self._comm is None else f"MPI rank {self._comm.Get_rank()}: "
        simulation.fail(f"{rank}{type(error).__name__}: {error}")

    def _together(self, ask: Callable[[], Simulation | None]) -> Simulation | None:
        """Return on every rank the simulation that rank 0 was given."""
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
                f"ASSIGN of simulation {answer.simulation} has {len(assign.parameters)} parameters, "
                f"WELCOME named {len(names)}"
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
        # The end of a simulation is reported even if the server no longer wants it.
        check = self._check_end if header.kind is Kind.FINISH else self._check
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
        """Raise an error if it is pointless to go on with the current simulation."""
        self._check_server()
        if self._heartbeat is not None:
            self._heartbeat.check_wanted()

    def _check_end(self) -> None:
        """Raise an error if it is pointless to go on reporting the end of a simulation."""
        self._check_server()
        if time.monotonic() > self._report_until:
            raise ServerLost(f"the server has not taken note of the failure within {REPORT_SECONDS:.0f} s")

    def _check_server(self) -> None:
        """Raise an error if the server is lost or does not want this client."""
        if self._heartbeat is None:
            return
        try:
            self._heartbeat.check_server()
            if self._heartbeat.silent() > UNANSWERED * self.welcome.heartbeat_ms / 1000:
                self._look_for_another_server()
        except (Refused, ServerLost):
            self._lost = True
            raise

    def _look_for_another_server(self) -> None:
        """Raise ServerLost if a restarted server has replaced connect.json; the old server will not answer any more."""
        now = time.monotonic()
        if not self._rereads or now - self._reread_at < REREAD_SECONDS:
            return
        self._reread_at = now
        try:
            incarnation = read_connect_file(self._connect).incarnation
        except ConnectError:
            return  # missing or incomplete for the moment: the heartbeat's time-out decides
        if incarnation != self._base.incarnation:
            raise ServerLost(f"the server has been restarted (as incarnation {incarnation}): connect again")
