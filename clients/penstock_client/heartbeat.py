"""Heartbeats on a thread and a connection of their own, independent of the solver's and the server's steps."""

from __future__ import annotations

import threading
import time

from penstock_client.errors import Abandoned, Refused, ServerLost, WireError
from penstock_client.payloads import Alive, Refuse
from penstock_client.transport import Connection
from penstock_client.wire import ANY_SIMULATION, Header, Kind, unpack

PATIENCE = 5.0  # seconds to wait for the thread to begin
SUSPENDED = 1.0  # a longer pause of the thread means that the process was stopped
LONG_PATIENCE = 60.0  # seconds to wait for the final heartbeat of a thread that runs, on an overloaded machine


class Heartbeat:
    """Sends heartbeats from `start` until `close`, and keeps what the server answered.

    The constructor does not start the thread: a signal handler may raise at any point, and the caller must be able to
    close every heartbeat that runs.

    Args:
        connection: connection to the coordinator; only the heartbeat's thread uses it.
        client: the 16 bytes that identify this client process.
        incarnation: the server's incarnation, sent with every heartbeat.
        interval: seconds between two heartbeats.
        server_timeout: seconds without an answer after which the server counts as lost.
    """

    def __init__(
        self, connection: Connection, client: bytes, incarnation: int, interval: float, server_timeout: float
    ) -> None:
        self._connection = connection
        self._client = client
        self._incarnation = incarnation
        self._interval = interval
        self._server_timeout = server_timeout
        self._current = (ANY_SIMULATION, 0)
        self._abandoned: tuple[int, int] | None = None
        self._trouble: Refused | WireError | ServerLost | None = None
        self._heard = self._ran = time.monotonic()  # when the server was heard; when this thread last looked
        self._closing = threading.Event()
        self._running = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="penstock-heartbeat", daemon=True)
        self._begun = False

    def start(self) -> None:
        """Start the thread."""
        self._begun = True
        self._thread.start()

    def serve(self, simulation: int, attempt: int) -> None:
        """Set the simulation that heartbeats name from now on; ANY_SIMULATION when idle."""
        self._current = (simulation, attempt)

    def silent(self) -> float:
        """Return the seconds since the server's last answer, as far as the thread has listened."""
        return max(0.0, self._ran - self._heard)

    def check_server(self) -> None:
        """Raise an error if this client cannot go on with this server.

        Raises:
            ServerLost: no answer for longer than the server's time-out, or the heartbeat's thread has died.
            Refused: the server belongs to another incarnation, or has given this client up.
            WireError: an answer was not a valid message.
        """
        if self._trouble is not None:
            raise self._trouble
        silent = self.silent()
        if silent > self._server_timeout:
            raise ServerLost(
                f"the server has not answered for {silent:.0f} s (time-out {self._server_timeout:.0f} s): "
                "is the study still running? `penstock status` in its run directory tells"
            )

    def check_wanted(self) -> None:
        """Raise an error if the server no longer wants the current simulation.

        Raises:
            Abandoned: the server has said so.
        """
        if self._abandoned == self._current and self._current[0] != ANY_SIMULATION:
            raise Abandoned(f"the server no longer wants simulation {self._current[0]}, attempt {self._current[1]}")

    def close(self) -> None:
        """Send the final heartbeat, then end the thread and close the connection."""
        self._closing.set()
        if self._begun:
            # Not join(): it raises if the thread's start was interrupted.
            if self._running.wait(PATIENCE):
                self._ended.wait(LONG_PATIENCE)  # it uses its socket, which must not be closed from here
        else:
            self._connection.close(deliver=False)

    def _beat(self) -> None:
        self._running.set()
        try:
            self._send_heartbeats()
        except Exception as error:  # raised by check_server on the solver's thread
            if not self._closing.is_set():
                self._trouble = ServerLost(
                    f"the thread that sends heartbeats has died ({type(error).__name__}: {error}): the server will give "
                    "this client up"
                )
        finally:
            self._connection.close(deliver=False)
            self._ended.set()

    def _send_heartbeats(self) -> None:
        while not self._closing.is_set():
            now = time.monotonic()
            paused = now - self._ran - self._interval
            if paused > SUSPENDED:  # the process was stopped, or had no core: nobody could hear the server
                self._heard += paused
            self._ran = now
            simulation, attempt = self._current
            header = Header(Kind.HEARTBEAT, self._incarnation, simulation, attempt)
            self._connection.send([header.pack(), self._client])
            while (frames := self._connection.receive(0)) is not None:
                try:
                    self._hear(frames)
                except WireError as error:  # raised by check_server on the solver's thread
                    self._trouble = self._trouble or error
            self._closing.wait(self._interval)

    def _hear(self, frames: list[bytes]) -> None:
        header, payload = unpack(frames[0]), b"".join(frames[1:2])
        self._heard = time.monotonic()
        if header.kind is Kind.ALIVE and Alive.unpack(payload).abandon:
            self._abandoned = (header.simulation, header.attempt)
        elif header.kind is Kind.REFUSE:
            refuse = Refuse.unpack(payload)
            self._trouble = Refused(refuse.reason, refuse.text)
        elif header.kind is not Kind.ALIVE:
            raise WireError(f"{header.kind.name} in answer to a heartbeat")
