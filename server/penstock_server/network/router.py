"""A ROUTER socket on a thread of its own, driving a handler that knows no sockets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import zmq

from penstock_client.zmq_transport import KEEPALIVE
from penstock_server.network.auth import AllowList, secure_context
from penstock_server.network.keys import StudyKeys
from penstock_server.network.messages import Frames, Message
from penstock_server.network.open_files import allow_open_files
from penstock_server.telemetry import Metrics

BACKLOG = 8192  # ZeroMQ's default of 100 loses simultaneous connects without a word
MAX_CONTROL_MESSAGE = 2 * 2**20  # a string of the wire format is at most half of it
MAX_WAITING = 64  # messages of one connection that nobody has looked at yet; then TCP stops their sender
MAX_UNREAD = 10_000  # answers that wait for one client to read them; further ones are dropped
CURVE_OVERHEAD = 64  # bytes that encryption adds to a frame, and some
VIEW_FROM = 32 * 1024  # bytes of a frame that a handler reads in place
AT_ONCE = 0.005  # seconds of receiving without looking at anything else

_FAILED_HANDSHAKES = zmq.Event.HANDSHAKE_FAILED_PROTOCOL | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL


class Handler(Protocol):
    """Deals with the messages of one socket."""

    def __call__(self, peer: bytes, frames: Frames, now: float, worker: str, /) -> list[Message]:
        """Deal with one message.

        Args:
            peer: routing id of the connection it came over.
            frames: of the message.
            now: seconds on the monotonic clock.
            worker: name of the key with which the sender is connected.

        Returns:
            The messages to send.
        """


class RouterLoop:
    """Binds a CURVE-protected ROUTER socket on a free port and serves it until closed.

    Every socket call is made by the loop's own thread; `post` hands it work from other threads over an inproc pair.

    Args:
        name: of the thread.
        host: IPv4 address to listen at.
        keys: of the study: the server's pair, and who may connect.
        handler: called with each message.
        metrics: counts the messages and connections that are refused.
        on_error: called when the handler raises, which no client's message makes it do: the server is broken.
        max_message: bytes of a frame; the connection that sends more is closed before anything is allocated for it.
        tick: called every `tick_seconds` with the time; returns messages to send.
        tick_seconds: seconds between two ticks.
        on_withdrawn: called with the names of keys that have been revoked, within a second; returns messages to send.

    Attributes:
        endpoint: address that clients connect to.
    """

    def __init__(
        self,
        name: str,
        host: str,
        keys: StudyKeys,
        handler: Handler,
        *,
        metrics: Metrics,
        on_error: Callable[[BaseException], None],
        max_message: int = MAX_CONTROL_MESSAGE,
        tick: Callable[[float], list[Message]] = lambda _now: [],
        tick_seconds: float = 1.0,
        on_withdrawn: Callable[[list[str]], list[Message]] = lambda _names: [],
    ) -> None:
        self._handler = handler
        self._metrics = metrics
        self._tick = tick
        self._tick_seconds = tick_seconds
        self._on_error, self._on_withdrawn = on_error, on_withdrawn
        # Without a free descriptor ZeroMQ cannot accept a connection, and tries again in a busy loop.
        allow_open_files()
        self._allow = AllowList(keys, metrics)
        self._context, self._authenticator = secure_context(self._allow)
        self._socket = self._context.socket(zmq.ROUTER)
        # Credit, in bytes, keeps honest clients far below these; they bound what others can make the server hold.
        self._socket.setsockopt(zmq.SNDHWM, MAX_UNREAD)
        self._socket.setsockopt(zmq.RCVHWM, MAX_WAITING)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # report messages that cannot be sent, which are counted
        # TCP notices broken connections. ZeroMQ's heartbeats would fail while a client's messages wait to be read.
        for option, value in KEEPALIVE.items():
            self._socket.setsockopt(option, value)
        self._socket.setsockopt(zmq.BACKLOG, BACKLOG)
        self._socket.setsockopt(zmq.MAXMSGSIZE, max_message + CURVE_OVERHEAD)
        self._socket.setsockopt(zmq.CURVE_SERVER, 1)
        self._socket.setsockopt(zmq.CURVE_SECRETKEY, keys.server_secret.encode())
        self._socket.setsockopt(zmq.LINGER, 1000)
        # Without a mark of its own: a full monitor would hold up ZeroMQ's thread, and with it everybody.
        self._socket.monitor(f"inproc://{name}-failures", _FAILED_HANDSHAKES)
        self._failures = self._context.socket(zmq.PAIR)
        self._failures.setsockopt(zmq.RCVHWM, 0)
        self._failures.connect(f"inproc://{name}-failures")
        port = self._socket.bind_to_random_port(f"tcp://{host}")
        self.endpoint = f"tcp://{host}:{port}"
        self._waker = self._context.socket(zmq.PAIR)
        self._waker.bind(f"inproc://{name}")
        self._wakened = self._context.socket(zmq.PAIR)
        self._wakened.connect(f"inproc://{name}")
        self._posts: list[Callable[[], list[Message]] | None] = []
        self._ended = False
        self._lock = threading.Lock()  # guards the two before it, and the waker
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin serving."""
        self._thread.start()

    def post(self, work: Callable[[], list[Message]] | None) -> None:
        """Let the loop's thread do something and send the messages that it returns. Any thread may call it.

        Nothing is done once the thread has ended.

        Args:
            work: what to do; None ends the loop.
        """
        with self._lock:
            if self._ended:
                return
            self._posts.append(work)
            with suppress(zmq.Again):  # it has been woken often enough, and takes all that is posted
                self._waker.send(b"", zmq.DONTWAIT)

    def close(self) -> None:
        """Send what is still to be sent and end the thread. A second call does nothing."""
        if self._context.closed:
            return
        if self._thread.ident is None:  # it was never started
            self._end()
        else:
            self.post(None)
            self._thread.join()
        self._waker.close(0)
        if not self._authenticator.is_alive():  # `stop` would wait for ever for the thread to take its message
            self._authenticator.pipe.close(0)
            self._authenticator.pipe = None  # type: ignore[assignment]
        self._authenticator.stop()
        self._context.destroy()

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException as error:
            self._on_error(error)
        finally:
            self._end()

    def _end(self) -> None:
        with self._lock:
            self._ended = True
        self._socket.disable_monitor()
        self._failures.close(0)
        self._socket.close()
        self._wakened.close(0)

    def _serve(self) -> None:
        poller = zmq.Poller()
        for socket in (self._socket, self._wakened, self._failures):
            poller.register(socket, zmq.POLLIN)
        next_tick = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= next_tick:
                if not self._authenticator.is_alive():
                    raise RuntimeError("the thread that lets clients in has died: nobody could connect any more")
                self._allow.refresh()
                self._tell_withdrawn()
                self._send(self._tick(now))
                next_tick = now + self._tick_seconds
            ready = dict(poller.poll(max(0, int((next_tick - now) * 1000) + 1)))
            if self._wakened in ready:
                self._wakened.recv()
                with self._lock:
                    posts, self._posts = self._posts, []
                for work in posts:
                    if work is None:
                        return
                    self._send(work())
            if self._failures in ready:
                self._failures.recv_multipart()
                self._metrics.handshake_refused("protocol")
            if self._socket in ready:
                self._receive_all()

    def _receive_all(self) -> None:
        """Deal with the messages that are there, for a bounded time: polling costs as much as taking some of them."""
        until = time.monotonic() + AT_ONCE
        with suppress(zmq.Again):
            while True:
                self._receive()
                if time.monotonic() > until:
                    return

    def _receive(self) -> None:
        peer = self._socket.recv(zmq.DONTWAIT, copy=False)  # a Frame, which knows its sender
        frames: Frames = []
        for frame in self._socket.recv_multipart(copy=False):  # a ROUTER hands out whole messages: the rest is there
            frames.append(frame.buffer if len(frame) >= VIEW_FROM else frame.bytes)
        self._metrics.messages_received.inc()
        if not self._allow.still_allows(peer):
            self._metrics.revoked_messages.inc()
            return
        self._tell_withdrawn()  # before a new client with a renewed key is dealt with
        self._send(self._handler(peer.bytes, frames, time.monotonic(), self._allow.name_of(peer)))

    def _tell_withdrawn(self) -> None:
        if names := self._allow.take_withdrawn():
            self._send(self._on_withdrawn(names))

    def _send(self, messages: list[Message]) -> None:
        for peer, frames in messages:
            try:
                self._socket.send_multipart([peer, *frames], zmq.DONTWAIT)
            except zmq.ZMQError as error:
                if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                    raise
                self._metrics.replies_dropped.inc()
