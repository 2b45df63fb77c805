"""A producer: it connects, sends a few time steps, waits for the word, and sends the rest.

    python -m performance.produce KIND WHERE ELEMENTS WARM STEPS

KIND is "penstock", "raw", "redis" or a format of files. WHERE tells it where to send, as JSON.
It imports neither torch nor the server.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from performance.file_formats import SimulationFiles
from performance.processes import await_word, tell

HEADER = 48  # bytes of the frame before a payload, as in Penstock's wire format
ZERO_COPY = 65536  # bytes from which pyzmq's copy=False pays
Array = NDArray[np.float32]
Send = Callable[[int, Array], None]


@contextmanager
def penstock(where: dict[str, Any]) -> Iterator[Send]:
    """Send through a Penstock client, as a solver does; a step is one call of `send`."""
    from penstock_client import Client

    with Client(where["connect"], timeout=120) as client:
        simulation = client.next_simulation()
        assert simulation is not None
        yield lambda step, values: simulation.send(step, T=values)
        simulation.finish()


@contextmanager
def raw(where: dict[str, Any]) -> Iterator[Send]:
    """Push header and payload into a raw ZeroMQ socket, with CURVE where there are keys."""
    import zmq

    header = bytes(HEADER)
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        if where.get("server_key"):
            public, secret = zmq.curve_keypair()
            socket.curve_serverkey = where["server_key"].encode()
            socket.curve_publickey, socket.curve_secretkey = public, secret
        socket.connect(where["endpoint"])

        def send(_step: int, values: Array) -> None:
            socket.send(header, zmq.SNDMORE)
            socket.send(values, copy=values.nbytes < ZERO_COPY)

        yield send


@contextmanager
def redis(where: dict[str, Any]) -> Iterator[Send]:
    """Append to a Redis list."""
    import redis as library

    connection = library.Redis(host="127.0.0.1", port=where["port"])
    yield lambda _step, values: connection.rpush("steps", values.tobytes())
    connection.close()


@contextmanager
def files(where: dict[str, Any]) -> Iterator[Send]:
    """Write files, as SimulationFiles describes."""
    with SimulationFiles(where["format"], Path(where["folder"]), where["producer"]) as writer:
        yield writer.write


KINDS = {"penstock": penstock, "raw": raw, "redis": redis, "files": files}


def main() -> None:
    """Run from the command line."""
    kind, where, *numbers = sys.argv[1:]
    elements, warm, steps = map(int, numbers)
    values = np.random.default_rng(0).random(elements, dtype=np.float32)
    with KINDS[kind](json.loads(where)) as send:
        for step in range(warm):
            send(step, values)
        tell(ready=True)
        await_word()
        before = time.process_time()
        for step in range(warm, warm + steps):
            send(step, values)
    tell(cpu=time.process_time() - before)


if __name__ == "__main__":
    main()
