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
from penstock_client.errors import ConnectError, PenstockError, Refused, ServerLost, WireError
from penstock_client.heartbeat import Heartbeat
from penstock_client.payloads import Assign, Hello, Refuse, Welcome
from penstock_client.simulation import Simulation
from penstock_client.stream import WAIT, Stream
from penstock_client.transport import Connection, Transport
from penstock_client.wire import ANY_SIMULATION, Header, Kind, unpack
from penstock_client.zmq_transport import ZmqTransport

SIMULATION_VARIABLE = "PENSTOCK_SIMULATION"
ATTEMPT_VARIABLE = "PENSTOCK_ATTEMPT"


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

    Raises:
        ConnectError: no usable connect.json, or nobody answers within `timeout`.
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
        if transport is None:
            info = read_connect_file(connect)
            transport, control, incarnation = ZmqTransport(info), info.control, info.incarnation
        if comm is not None:
            rank, ranks = comm.Get_rank(), comm.Get_size()
        self._comm = comm if ranks > 1 else None
        self._current: Simulation | None = None
        self._transport = transport
        self._ranks = ranks
        self._base = Header(Kind.HELLO, incarnation, ANY_SIMULATION, rank=rank)
        self._id = secrets.token_bytes(16)
        self._streams: list[Stream] = []
        self._heartbeat: Heartbeat | None = None
        self._control: Connection = transport.connect(control)
        try:
            self.welcome = self._hello(control, timeout)
            if self.welcome.heartbeat_ms:
                self._heartbeat = Heartbeat(
                    transport.connect(control),
                    self._id,
                    incarnation,
                    self.welcome.heartbeat_ms / 1000,
                    self.welcome.server_timeout_ms / 1000,
                )
            self._streams = [
                Stream(transport.connect(endpoint), self.welcome, self._check)
                for endpoint in self.welcome.rank_endpoints
            ]
        except BaseException:
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

    def close(self) -> None:
        """Close every connection; a simulation that is not finished is handed out again by the server."""
        if self._heartbeat is not None:
            self._heartbeat.close()
        for stream in self._streams:
            stream.close()
        self._control.close()
        self._transport.close()

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
        header = self._base._replace(kind=Kind.NEXT, simulation=wanted, attempt=attempt)
        self._control.send([header.pack(), b""])
        answer, payload = self._answer()
        if answer.kind is Kind.NO_MORE:
            return None
        if answer.kind is not Kind.ASSIGN:
            raise WireError(f"{answer.kind.name} in answer to NEXT")
        assign = Assign.unpack(payload)
        if self._heartbeat is not None:
            self._heartbeat.serve(answer.simulation, answer.attempt)
        return Simulation(
            self._base._replace(simulation=answer.simulation, attempt=answer.attempt),
            dict(zip(self.welcome.parameters, assign.parameters, strict=True)),
            validation=assign.validation,
            ranks=self._ranks,
            welcome=self.welcome,
            streams=self._streams,
            request=self._request,
            check=self._check,
        )

    def _hello(self, control: str, timeout: float) -> Welcome:
        hello = Hello(self._id, os.getpid(), socket.gethostname())
        self._control.send([self._base.pack(), hello.pack()])
        deadline = time.monotonic() + timeout
        try:
            header, payload = self._answer(deadline)
        except ServerLost as error:
            raise ConnectError(
                f"no answer from {control} within {timeout:.0f} s: is the study running, and is its connect.json "
                "the current one (address and keys)?"
            ) from error
        if header.kind is not Kind.WELCOME:
            raise WireError(f"{header.kind.name} in answer to HELLO")
        return Welcome.unpack(payload)

    def _request(self, header: Header, payload: bytes, expected: Kind) -> bytes:
        self._control.send([header.pack(), payload])
        answer, body = self._answer()
        if answer.kind is not expected:
            raise WireError(f"{answer.kind.name} in answer to {header.kind.name}, expected {expected.name}")
        if expected is Kind.FINISHED and self._heartbeat is not None:
            self._heartbeat.serve(ANY_SIMULATION, 0)
        return body

    def _answer(self, deadline: float | None = None) -> tuple[Header, bytes]:
        """The next control message; the server answers each request with exactly one."""
        while (frames := self._control.receive(WAIT)) is None:
            self._check()
            if deadline is not None and time.monotonic() > deadline:
                raise ServerLost("no answer")
        if len(frames) != 2:
            raise WireError(f"control message of {len(frames)} frames, expected 2")
        header = unpack(frames[0])
        if header.kind is Kind.REFUSE:
            refuse = Refuse.unpack(frames[1])
            raise Refused(refuse.reason, refuse.text)
        return header, frames[1]

    def _check(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.check()
