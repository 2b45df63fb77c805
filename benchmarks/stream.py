"""Measure how fast time steps get from a solver's memory into the buffer, beside raw ZeroMQ on the same machine.

    python benchmarks/stream.py

Both senders send over loopback with CURVE from a process of their own. "stream" is a real client into a real ingest and
buffer (checks, ledger, normalisation, credit). "raw" is PUSH/PULL, with each message copied once into an array.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import zmq

from penstock_client import Client
from penstock_server.engines.inline import InlineEngine
from penstock_server.study import Study

SIZES = {"1 KB": 256, "40 KB": 10_000, "400 KB": 100_000, "4 MB": 1_000_000}
BYTES = 400 * 2**20  # sent at most for each size
MESSAGES = 5000
REPEATS = 3


def send_stream(connect: Path, elements: int, number: int) -> None:
    """Send one simulation of `number` time steps."""
    values = np.random.default_rng(0).random(elements, dtype=np.float32)
    with Client(connect) as client:
        for simulation in client.simulations():
            for step in range(number):
                simulation.send(step, T=values)


def stream(elements: int, number: int) -> float:
    """Return the seconds from the first sample to the last in the buffer, without training meanwhile."""
    study = Study.model_validate(
        {
            "study": {"name": "bench", "engine": "inline"},
            "parameters": {"a": [0.0, 1.0]},
            "solver": {"command": ["none"], "simulations": 1},
            "fields": {"T": {}},
            # The buffer never fills and the watermark is never reached, so only ingest works.
            "buffer": {"capacity": number + 2, "watermark": number + 1, "presentations_per_sample": 1e-9},
            "model": {"name": "mlp", "hidden": [1]},
            "training": {"batch_size": 1, "device": "cpu", "max_batches": 1},
        }
    )
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        engine = InlineEngine(study, Path(folder), threads=1)
        sender = multiprocessing.get_context("spawn").Process(
            target=send_stream, args=(engine.start(), elements, number)
        )
        sender.start()
        while engine.status().received == 0:
            time.sleep(0.02)
        begun, first = time.perf_counter(), engine.status().received
        while (received := engine.status().received) < number:
            time.sleep(0.02)
        seconds = (time.perf_counter() - begun) * number / (received - first)
        engine.stop("measured")
        engine.wait(60)
        sender.join()
        engine.close()
    return seconds


def send_raw(endpoint: str, keys: tuple[bytes, bytes, bytes], elements: int, number: int) -> None:
    """Send `number` messages of `elements` float32."""
    values = np.random.default_rng(0).random(elements, dtype=np.float32)
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.curve_serverkey, socket.curve_publickey, socket.curve_secretkey = keys
        socket.connect(endpoint)
        for _ in range(number):
            socket.send(values.tobytes(), copy=False)


def raw(elements: int, number: int) -> float:
    """Return the seconds from the first message to the last."""
    public, secret = zmq.curve_keypair()
    client_public, client_secret = zmq.curve_keypair()
    target = np.empty((number, elements), np.float32)
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.curve_server, socket.curve_secretkey = True, secret
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        arguments = (f"tcp://127.0.0.1:{port}", (public, client_public, client_secret), elements, number)
        sender = multiprocessing.get_context("spawn").Process(target=send_raw, args=arguments)
        sender.start()
        for row in range(number):
            message = socket.recv(copy=False)
            if row == 0:
                begun = time.perf_counter()
            target[row] = np.frombuffer(message.buffer, np.float32)
        seconds = time.perf_counter() - begun
        sender.join()
    return seconds


def main() -> None:
    """Run from the command line."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    assert threading.active_count() == 1
    print(f"{'sample':>8} {'stream /s':>12} {'stream GB/s':>12} {'raw /s':>12} {'stream/raw':>11}")
    for name, elements in SIZES.items():
        number = min(MESSAGES, BYTES // (4 * elements))
        pairs = [(stream(elements, number), raw(elements, number)) for _ in range(REPEATS)]
        ratio = sorted(r / s for s, r in pairs)[REPEATS // 2]
        ours, theirs = (sorted(column)[REPEATS // 2] for column in zip(*pairs, strict=True))
        gigabytes = number * elements * 4 / ours / 1e9
        print(f"{name:>8} {number / ours:>12,.0f} {gigabytes:>12.2f} {number / theirs:>12,.0f} {ratio:>11.2f}")


if __name__ == "__main__":
    main()
