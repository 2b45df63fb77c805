"""A server whose answers a test writes, for libpenstock to talk to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zmq

from penstock_client import wire
from penstock_client.connect_file import ConnectInfo
from penstock_client.payloads import Accept, Alive, Assign, Welcome
from penstock_client.wire import Kind
from penstock_server.network import open_keys
from penstock_server.network.auth import AllowList, secure_context
from penstock_server.network.keys import DEFAULT
from penstock_server.telemetry import Metrics


@contextmanager
def scripted(
    tmp_path: Path,
    script: dict[Kind, Any],
    timeout_ms: int = 600,
    coalesce: tuple[int, int] = (0, 0),
    credit: int = 1000,
) -> Iterator[Path]:
    """Start a server that answers as the script says, for faults that the real server does not have; yields its connect.json.

    script: for each kind of request a function from its header to the frames of the answer, or None for silence.
        An answer of "die" ends the server.
    coalesce: bytes and milliseconds for which clients may hold pieces back.
    """
    keys = open_keys(tmp_path)
    context, authenticator = secure_context(AllowList(keys, Metrics("scripted", "test")))
    router = context.socket(zmq.ROUTER)
    router.setsockopt(zmq.CURVE_SERVER, 1)
    router.setsockopt(zmq.CURVE_SECRETKEY, keys.server_secret.encode())
    router.setsockopt(zmq.LINGER, 0)
    endpoint = f"tcp://127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}"
    welcome = Welcome(100, timeout_ms, credit, *coalesce, False, (endpoint,), ("a",), ("u",), "")
    answers: dict[Kind, Any] = {
        Kind.HELLO: lambda h: [h._replace(kind=Kind.WELCOME).pack(), welcome.pack()],
        Kind.HEARTBEAT: lambda h: [h._replace(kind=Kind.ALIVE).pack(), Alive(False).pack()],
        Kind.NEXT: lambda h: [h._replace(kind=Kind.ASSIGN).pack(), Assign((2.0,), False).pack()],
        Kind.ANNOUNCE: lambda h: [h._replace(kind=Kind.ACCEPT).pack(), Accept((0,), (True,)).pack()],
        Kind.BEGIN: lambda h: [h._replace(kind=Kind.CREDIT, count=credit).pack()],
    } | script
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            if router.poll(20):
                peer, *frames = router.recv_multipart()
                answer = answers.get(wire.unpack(frames[0]).kind)
                reply = answer(wire.unpack(frames[0])) if answer else None
                if reply == "die":
                    break
                if reply is not None:
                    router.send_multipart([peer, *reply])
        router.close()

    thread = threading.Thread(target=serve)
    thread.start()
    path = tmp_path / "connect.json"
    ConnectInfo("s", 1, endpoint, keys.server_public, keys.workers[DEFAULT].public, keys.workers[DEFAULT].secret).write(
        path
    )
    try:
        yield path
    finally:
        over.set()
        thread.join()
        authenticator.stop()
        context.destroy(linger=0)


def answer(kind: Kind, payload: bytes = b"") -> Any:
    """Make a function that answers every request with this kind and payload."""
    return lambda h: [h._replace(kind=kind).pack(), payload]
