"""The sockets of a study in this process, each served by a thread of its own: one for control, one for data."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Protocol

from penstock_server.coordinator import Coordinator
from penstock_server.network import Admissions, Assignment, Frames, Message, RouterLoop, StudyKeys
from penstock_server.study import Schema
from penstock_server.telemetry import Metrics

MakeCoordinator = Callable[[tuple[str, ...], Callable[[Schema], bool], Callable[[Assignment], bool]], Coordinator]
"""Makes a coordinator from the endpoints of the data sockets, its `on_schema` and its `on_assignment`."""


class DataRank(Protocol):
    """Receiver of the data socket's messages: a trainer rank, or a recorder."""

    metrics: Metrics
    admissions: Admissions

    @property
    def over(self) -> str:
        """Why it takes no more data; "" while it does."""

    def configure(self, schema: Schema) -> None:
        """Get ready for these fields."""

    def handle(self, peer: bytes, frames: Frames, now: float, worker: str) -> list[Message]:
        """Deal with one message of the data socket; return the messages to send."""

    def release(self, assignment: Assignment) -> list[Message]:
        """Give back what is held for an attempt that has ended; return the messages to send."""

    def tick(self, now: float, /) -> list[Message]:
        """Give back what is held for clients that have gone; return the messages to send."""


class ControlSocket:
    """A coordinator behind its socket. The socket's thread alone changes the coordinator; others hand it work.

    Args:
        name: of the socket's thread.
        host: address to bind.
        keys: of the study.
        coordinator: the coordinator.
        metrics: of the socket.
        on_production_over: called once, on the socket's thread, when no time step will arrive any more.
        on_error: called when the socket's thread has died: the server is broken.
        on_hopeless: called once with the reason when the study should stop as failed.
        on_tick: called every second, on the socket's thread.
    """

    def __init__(
        self,
        name: str,
        host: str,
        keys: StudyKeys,
        coordinator: Coordinator,
        *,
        metrics: Metrics,
        on_production_over: Callable[[], None],
        on_error: Callable[[BaseException], None],
        on_hopeless: Callable[[str], None],
        on_tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._coordinator = coordinator
        self._on_production_over, self._on_hopeless, self._on_tick = on_production_over, on_hopeless, on_tick
        self._told_production_over = self._told_hopeless = False
        self._loop = RouterLoop(
            name,
            host,
            keys,
            self._handle,
            metrics=metrics,
            tick=self._tick,
            on_error=on_error,
            on_withdrawn=lambda names: self._after(coordinator.withdrawn(names)),
        )
        self.endpoint = self._loop.endpoint

    def start(self) -> None:
        """Begin serving."""
        self._loop.start()

    def configured(self) -> None:
        """Let the coordinator know that all ranks are ready."""
        self._post(self._coordinator.configured)

    def admitted(self, number: int) -> None:
        """Let the coordinator know that all ranks know the first `number` assignments."""
        self._post(lambda: self._coordinator.admitted(number))

    def static_arrived(self, name: str) -> None:
        """Let the coordinator know that a static field has arrived."""

        def note() -> list[Message]:
            self._coordinator.static_arrived(name)
            return []

        self._post(note)

    def worker_exited(self, host: str, pid: int, text: str) -> None:
        """Let the coordinator know that a worker process has ended."""
        self._post(lambda: self._coordinator.worker_exited(host, pid, text))

    def stop(self) -> None:
        """Hand out no more simulations; clients are told to abandon the running ones."""
        self._post(self._coordinator.stop)

    def close(self) -> None:
        """Send what is still to be sent and end the thread."""
        self._loop.close()

    def _post(self, work: Callable[[], list[Message]]) -> None:
        self._loop.post(lambda: self._after(work()))

    def _handle(self, peer: bytes, frames: Frames, now: float, worker: str) -> list[Message]:
        return self._after(self._coordinator.handle(peer, frames, now, worker))

    def _tick(self, now: float) -> list[Message]:
        self._on_tick()
        return self._after(self._coordinator.tick(now))

    def _after(self, messages: list[Message]) -> list[Message]:
        if self._coordinator.hopeless and not self._told_hopeless:
            self._told_hopeless = True
            self._on_hopeless(self._coordinator.hopeless)
        if self._coordinator.production_over and not self._told_production_over:
            self._told_production_over = True
            self._on_production_over()
        return messages


class StudySockets:
    """A study's control socket and its one data socket. The data socket's thread alone changes the rank.

    Args:
        host: address to bind.
        keys: of the study.
        rank: where data go.
        make_coordinator: makes the coordinator, which must know the endpoint of the data socket.
        metrics: of the control socket.
        max_message: bytes that a client may send in one frame on the data socket.
        on_production_over: called once, on the data socket's thread, when no time step will arrive any more.
        on_error: called when either thread has died: the server is broken.
        on_hopeless: called once with the reason when the study should stop as failed.

    Attributes:
        coordinator: the coordinator behind the control socket.
        control_endpoint: address of the control socket.
        data_endpoint: address of the data socket.
    """

    def __init__(
        self,
        host: str,
        keys: StudyKeys,
        rank: DataRank,
        make_coordinator: MakeCoordinator,
        *,
        metrics: Metrics,
        max_message: int,
        on_production_over: Callable[[], None],
        on_error: Callable[[BaseException], None],
        on_hopeless: Callable[[str], None],
    ) -> None:
        self._rank, self._on_production_over = rank, on_production_over
        self._data = RouterLoop(
            "data",
            host,
            keys,
            self._handle_data,
            metrics=rank.metrics,
            max_message=max_message,
            on_error=on_error,
            tick=rank.tick,
        )
        try:
            self.coordinator = make_coordinator((self._data.endpoint,), self._configure, self._note_assignment)
            self._control = ControlSocket(
                "control",
                host,
                keys,
                self.coordinator,
                metrics=metrics,
                on_production_over=self._post_production_over,
                on_error=on_error,
                on_hopeless=on_hopeless,
            )
        except BaseException:
            self._data.close()
            raise
        self.data_endpoint, self.control_endpoint = self._data.endpoint, self._control.endpoint

    def start(self) -> None:
        """Begin serving."""
        self._data.start()
        self._control.start()

    def static_arrived(self, name: str) -> None:
        """Let the coordinator know that a static field has arrived."""
        self._control.static_arrived(name)

    def worker_exited(self, pid: int, text: str) -> None:
        """Let the coordinator know that a worker process on this machine has ended."""
        self._control.worker_exited(socket.gethostname(), pid, text)

    def stop(self) -> None:
        """Hand out no more simulations."""
        self._control.stop()

    def close(self) -> None:
        """Send what is still to be sent and end both threads."""
        self._data.close()
        self._control.close()

    def _configure(self, schema: Schema) -> bool:
        """Make the rank ready on its own thread (the coordinator's `on_schema`)."""

        def configure() -> list[Message]:
            self._rank.configure(schema)
            self._control.configured()
            return []

        self._data.post(configure)
        return False

    def _note_assignment(self, assignment: Assignment) -> bool:
        """Tell the rank of an attempt that was assigned or has ended (the coordinator's `on_assignment`)."""
        self._rank.admissions.note(assignment)
        if assignment.over:
            self._data.post(lambda: self._rank.release(assignment))
        return True

    def _post_production_over(self) -> None:
        def tell() -> list[Message]:
            self._on_production_over()
            return []

        self._data.post(tell)

    def _handle_data(self, peer: bytes, frames: Frames, now: float, worker: str) -> list[Message]:
        messages = self._rank.handle(peer, frames, now, worker)
        if self._rank.over:
            self.stop()
        return messages
