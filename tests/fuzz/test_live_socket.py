"""The real server's sockets: a client with the right key that sends messages which are nearly right, beside one that does all right;
and neighbours who do not speak ZeroMQ at all."""

from __future__ import annotations

import random
import socket
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import zmq
from choices import Choices
from coordinator_target import CONTROL_SEEDS
from ingest_target import DATA_SEEDS
from mutations import Frames, mutated, vector_messages

from live_server import live_server
from penstock_client import Client
from penstock_client.connect_file import ConnectInfo, read_connect_file
from penstock_client.simulation import Field

FIELDS = {"U": {"components": 3}, "p": {}}
POINTS = 40
STEPS = 60
MESSAGES = 25  # to each socket, beside each time step of the valid client
MAX_GROWTH = 96 * 2**20  # bytes; what the server takes for the study itself is in it


def dealer(context: zmq.Context[zmq.Socket[bytes]], info: ConnectInfo, endpoint: str) -> zmq.Socket[bytes]:
    """A connection as a client makes it."""
    made = context.socket(zmq.DEALER)
    made.setsockopt(zmq.LINGER, 0)
    made.setsockopt(zmq.CURVE_SERVERKEY, info.server_public_key.encode())
    made.setsockopt(zmq.CURVE_PUBLICKEY, info.client_public_key.encode())
    made.setsockopt(zmq.CURVE_SECRETKEY, info.client_secret_key.encode())
    made.connect(endpoint)
    return made


def answered(stranger: zmq.Socket[bytes]) -> int:
    """How many answers are there; they are taken away."""
    number = 0
    while stranger.poll(0):
        stranger.recv_multipart()
        number += 1
    return number


def of_this_study(frame: bytes, incarnation: int) -> bytes:
    """A header with the incarnation of the server, which the seeds cannot know, and about another simulation than the valid client's:
    a client that lies about one harms that one."""
    if len(frame) != 64:
        return frame
    simulation = frame[16:24] if frame[16:24] != bytes(8) else (9).to_bytes(8, "little")
    return frame[:8] + incarnation.to_bytes(4, "little") + frame[12:16] + simulation + frame[24:]


def valid_step(step: int) -> dict[str, np.ndarray]:
    return {"U": np.full((POINTS, 3), float(step)), "p": np.full(POINTS, -float(step), np.float32)}


def test_valid_traffic_is_complete_beside_messages_that_are_nearly_right(tmp_path: Path) -> None:
    numbers = random.Random(4)
    with (
        live_server(tmp_path / "run", FIELDS, server_timeout=60) as server,
        zmq.Context() as context,
        Client(server.connect) as client,
    ):
        info = read_connect_file(server.connect)
        (data,) = client.welcome.rank_endpoints
        strangers = [(dealer(context, info, info.control), CONTROL_SEEDS), (dealer(context, info, data), DATA_SEEDS)]
        answers = sent = settled = 0
        for simulation in client.simulations():
            simulation.announce(U=Field((POINTS,), 3), p=Field((POINTS,), dtype="float32"))
            for step in range(STEPS):
                simulation.send(step, **valid_step(step))
                for stranger, seeds in strangers:
                    for _ in range(MESSAGES):
                        frames: Frames = mutated(Choices(numbers.randbytes(64)), seeds)
                        if frames:
                            stranger.send_multipart([of_this_study(f, info.incarnation) for f in frames])
                            sent += 1
                    answers += answered(stranger)
                if step == STEPS // 3:
                    settled = psutil.Process().memory_info().rss
        # The last of it is dealt with too before the server is asked how it is.
        deadline = time.monotonic() + 60
        while answers < sent // 2 and time.monotonic() < deadline:
            answers += sum(answered(stranger) for stranger, _ in strangers)
            time.sleep(0.01)
        grown = psutil.Process().memory_info().rss - settled
        for stranger, _ in strangers:
            stranger.close()
        report = server.report()
    assert report["status"] == "finished", report
    assert report["simulations"]["finished"] == 1
    assert report["samples"]["unique"] == report["samples"]["expected"] == STEPS
    assert report["samples"]["trained_unique"] == STEPS
    assert report["samples"]["duplicates_dropped"] == 0
    assert report["samples"]["rejected"] > STEPS
    assert sent > MESSAGES * STEPS
    assert answers >= sent // 2
    assert grown < MAX_GROWTH, f"{grown / 2**20:.0f} MiB more after {sent} messages"


NOT_ZMTP = [
    ("http", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("zeros", bytes(4096)),
    ("ones", b"\xff" * 4096),
    ("greeting of ZMTP 1", b"\x01\x00"),
    ("greeting without security", b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(48)),
    ("huge frame", b"\xff" + bytes(8) + b"\x7f\x03\x01CURVE" + bytes(47) + b"\x06" + b"\xff" * 8),
    ("vectors", b"".join(b"".join(message) for message in vector_messages())),
]


@pytest.mark.parametrize("count", [40])
def test_neighbours_who_speak_something_else_do_not_disturb(tmp_path: Path, count: int) -> None:
    numbers = random.Random(5)
    with live_server(tmp_path / "run", FIELDS, server_timeout=60) as server, Client(server.connect) as client:
        info = read_connect_file(server.connect)
        ports = [int(end.rsplit(":", 1)[1]) for end in (info.control, *client.welcome.rank_endpoints)]
        before = psutil.Process().memory_info().rss
        half_open: list[socket.socket] = []
        for simulation in client.simulations():
            simulation.announce(U=Field((POINTS,), 3), p=Field((POINTS,), dtype="float32"))
            for step in range(count):
                for port in ports:
                    neighbour = socket.create_connection(("127.0.0.1", port), timeout=10)
                    half_open.append(neighbour)
                    _, words = (
                        NOT_ZMTP[step % (len(NOT_ZMTP) + 1)]
                        if step % (len(NOT_ZMTP) + 1) < len(NOT_ZMTP)
                        else ("", b"")
                    )
                    if words and step % 3 == 0:
                        words = bytes(b ^ (numbers.randrange(256) if numbers.random() < 0.1 else 0) for b in words)
                    neighbour.sendall(words)
                    if step % 5 == 0:
                        half_open.pop().close()
                simulation.send(step, **valid_step(step))
        with Client(server.connect) as another:  # new clients still get in
            assert another.welcome.fields == ("U", "p")
        report = server.report()
        grown = psutil.Process().memory_info().rss - before
        for neighbour in half_open:
            neighbour.close()
    assert report["status"] == "finished", report
    assert report["samples"]["unique"] == report["samples"]["expected"] == count
    assert grown < MAX_GROWTH, f"{grown / 2**20:.0f} MiB"
