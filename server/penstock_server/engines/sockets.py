"""A study's two sockets in this process: one for control, one for data, each served by a thread of its own."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Protocol

from penstock_server.coordinator import Coordinator
from penstock_server.network import Message, RouterLoop, StudyKeys
from penstock_server.study import Schema
from penstock_server.telemetry import Metrics


class DataRank(Protocol):
    """Where data go: a trainer rank, or a recorder."""

    metrics: Metrics

    @property
    def over(self) -> str:
        """Why it wants no more; "" while it does."""

    def configure(self, schema: Schema) -> None:
        """The fields are known."""

    def handle(self, peer: bytes, frames: list[bytes], now: float) -> list[Message]:
        """One message of the data socket."""


class StudySockets:
    """The control thread alone touches the coordinator, the data thread alone the rank.

    Args:
        metrics: of the control socket. max_message: bytes of a frame on the data socket.
        on_production_over: called once, on the data thread, when no time step will come any more.
        on_error: called when either thread has died: the server is broken.
    """

    def __init__(
        self,
        host: str,
        keys: StudyKeys,
        rank: DataRank,
        *,
        metrics: Metrics,
        max_message: int,
        on_production_over: Callable[[], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._rank, self._on_production_over = rank, on_production_over
        self._told = False
        self._data = RouterLoop(
            "data", host, keys, self._handle_data, metrics=rank.metrics, max_message=max_message, on_error=on_error
        )
        self._control = RouterLoop(
            "control", host, keys, self._handle_control, metrics=metrics, tick=self._tick, on_error=on_error
        )
        self.data_endpoint, self.control_endpoint = self._data.endpoint, self._control.endpoint

    def serve(self, coordinator: Coordinator) -> None:
        """Begin."""
        self._coordinator = coordinator
        self._data.start()
        self._control.start()

    def configure(self, schema: Schema) -> bool:
        """The coordinator's `on_schema`: the rank makes itself ready on its own thread."""

        def configure() -> list[Message]:
            self._rank.configure(schema)
            self._control.post(self._coordinator.configured)
            return []

        self._data.post(configure)
        return False

    def worker_exited(self, pid: int, text: str) -> None:
        """A worker process on this machine has ended."""
        self._control.post(lambda: self._after(self._coordinator.worker_exited(socket.gethostname(), pid, text)))

    def stop(self) -> None:
        """Hand out nothing more."""
        self._control.post(lambda: self._after(self._coordinator.stop()))

    def close(self) -> None:
        """Send what is still to be sent and end both threads."""
        self._data.close()
        self._control.close()

    def _handle_control(self, peer: bytes, frames: list[bytes], now: float) -> list[Message]:
        return self._after(self._coordinator.handle(peer, frames, now))

    def _tick(self, now: float) -> list[Message]:
        return self._after(self._coordinator.tick(now))

    def _after(self, messages: list[Message]) -> list[Message]:
        if self._coordinator.production_over and not self._told:
            self._told = True
            self._data.post(self._tell)
        return messages

    def _tell(self) -> list[Message]:
        self._on_production_over()
        return []

    def _handle_data(self, peer: bytes, frames: list[bytes], now: float) -> list[Message]:
        messages = self._rank.handle(peer, frames, now)
        if self._rank.over:
            self.stop()
        return messages
