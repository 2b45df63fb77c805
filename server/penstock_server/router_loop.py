"""A ROUTER socket on a thread of its own, driving a handler that knows no sockets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

import zmq

from penstock_server.auth import StudyKeys, secure_context

Message = tuple[bytes, list[bytes]]
BACKLOG = 8192  # ZeroMQ's default of 100 loses simultaneous connects without a word
HEARTBEAT_MS, CUT_OFF_MS = (
    10_000,
    60_000,
)  # ZeroMQ's own: a client cut off without a word is noticed and its connection dropped
MAX_MESSAGE_BYTES = 2**31  # refused by ZeroMQ before anything is allocated for it


class Handler(Protocol):
    """What is done with one message, at time `now` (seconds, monotonic); the messages to send follow."""

    def __call__(self, peer: bytes, frames: list[bytes], now: float) -> list[Message]: ...


class RouterLoop:
    """Binds a CURVE-protected ROUTER socket on a free port and serves it until closed.

    Every socket call is made by the loop's own thread; `post` hands it work from other threads over an inproc pair.

    Args:
        tick: called every `tick_seconds` with the time; returns messages to send.
        on_error: called when the handler raises, which a peer's message never makes it do: the server is broken.
    """

    def __init__(
        self,
        name: str,
        host: str,
        keys: StudyKeys,
        handler: Handler,
        *,
        on_error: Callable[[BaseException], None],
        tick: Callable[[float], list[Message]] = lambda _now: [],
        tick_seconds: float = 1.0,
    ) -> None:
        self._handler = handler
        self._tick = tick
        self._tick_seconds = tick_seconds
        self._on_error = on_error
        self._context, self._authenticator = secure_context(keys)
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.SNDHWM, 0)  # credit bounds what is on the way, not message counts
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, CUT_OFF_MS)
        self._socket.setsockopt(zmq.BACKLOG, BACKLOG)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        self._socket.setsockopt(zmq.CURVE_SERVER, 1)
        self._socket.setsockopt(zmq.CURVE_SECRETKEY, keys.server_secret.encode())
        self._socket.setsockopt(zmq.LINGER, 1000)
        port = self._socket.bind_to_random_port(f"tcp://{host}")
        self.endpoint = f"tcp://{host}:{port}"
        self._waker = self._context.socket(zmq.PAIR)
        self._waker.bind(f"inproc://{name}")
        self._wakened = self._context.socket(zmq.PAIR)
        self._wakened.connect(f"inproc://{name}")
        self._posts: list[Callable[[], list[Message]] | None] = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin serving."""
        self._thread.start()

    def post(self, work: Callable[[], list[Message]] | None) -> None:
        """Have the loop's thread do something and send the messages that follow; None ends the loop."""
        with self._lock:
            self._posts.append(work)
            self._waker.send(b"")

    def close(self) -> None:
        """Send what is still to be sent and end the thread. A second call does nothing."""
        if self._context.closed:
            return
        self.post(None)
        self._thread.join()
        self._waker.close(0)
        self._authenticator.stop()
        self._context.destroy()

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException as error:
            self._on_error(error)
        finally:
            self._socket.close()
            self._wakened.close(0)

    def _serve(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wakened, zmq.POLLIN)
        next_tick = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= next_tick:
                self._send(self._tick(now))
                next_tick = now + self._tick_seconds
            ready = dict(poller.poll(max(0, int((next_tick - now) * 1000) + 1)))
            if self._wakened in ready:
                self._wakened.recv()
                with self._lock:
                    work = self._posts.pop(0)
                if work is None:
                    return
                self._send(work())
            if self._socket in ready:
                peer, *frames = self._socket.recv_multipart()
                self._send(self._handler(peer, frames, time.monotonic()))

    def _send(self, messages: list[Message]) -> None:
        for peer, frames in messages:
            self._socket.send_multipart([peer, *frames])
