"""A consumer: it says where to send, takes what comes, and says how fast it came.

    python -m performance.consume KIND JOB

It says where producers send (JSON), then that it has the time steps for warming up. It waits for the word, says that its
clock runs, and in the end its figures. JOB is a `job.Job` as JSON.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from performance import file_formats
from performance.job import Job, Meter, provide_memory
from performance.processes import await_word, tell

Take = Callable[[NDArray[np.float32]], None]
"""Fills the rows of an array with the next time steps."""


@contextmanager
def raw(job: Job) -> Iterator[tuple[dict[str, Any], Take]]:
    """Pull from a raw ZeroMQ socket, and copy each payload once into its row."""
    import zmq

    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        where: dict[str, Any] = {}
        if job.options.get("curve"):
            public, secret = zmq.curve_keypair()
            socket.curve_server, socket.curve_secretkey = True, secret
            where["server_key"] = public.decode()
        host = job.options.get("host", "127.0.0.1")
        where["endpoint"] = f"tcp://{host}:{socket.bind_to_random_port(f'tcp://{host}')}"

        def take(rows: NDArray[np.float32]) -> None:
            for row in rows:
                socket.recv()
                row[:] = np.frombuffer(socket.recv(copy=False).buffer, np.float32)

        yield where, take


@contextmanager
def redis(job: Job) -> Iterator[tuple[dict[str, Any], Take]]:
    """Pop from a list of a Redis server of its own, up to 64 entries in a call."""
    import redis as library

    port = _free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", job.scratch]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    connection = library.Redis(host="127.0.0.1", port=port)
    try:
        while True:
            try:
                connection.ping()
                break
            except library.exceptions.ConnectionError:
                time.sleep(0.05)

        waiting: list[bytes] = []

        def take(rows: NDArray[np.float32]) -> None:
            for row in rows:
                while not waiting:
                    found = connection.lpop("steps", 64)
                    if found:
                        waiting.extend(reversed(found))
                    else:
                        _, first = connection.blpop(["steps"])
                        waiting.append(first)
                row[:] = np.frombuffer(waiting.pop(), np.float32)

        yield {"port": port}, take
    finally:
        connection.close()
        server.terminate()
        server.wait()


@contextmanager
def ray(job: Job) -> Iterator[tuple[dict[str, Any], Take]]:
    """Take from a Ray queue, filled by Ray tasks, up to 64 entries in a call."""
    import os

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray as library
    from ray.util.queue import Queue

    library.init(
        "local",
        num_cpus=job.producers + 1,
        include_dashboard=False,
        object_store_memory=512 * 2**20,
        logging_level="ERROR",
        log_to_driver=False,
        _temp_dir=job.options["ray_folder"],
    )
    queue = Queue(maxsize=256)

    @library.remote(num_cpus=1)  # type: ignore[misc]
    def produce(queue: Any, elements: int, steps: int) -> None:
        values = np.random.default_rng(0).random(elements, dtype=np.float32)
        for _ in range(steps):
            queue.put(values)

    waiting: list[Any] = []
    tasks = [produce.remote(queue, job.elements, job.warm + job.steps) for _ in range(job.producers)]

    def take(rows: NDArray[np.float32]) -> None:
        for row in rows:
            while not waiting:
                number = min(64, max(1, queue.size()))
                waiting.extend(reversed(queue.get_nowait_batch(number)) if number > 1 else [queue.get()])
            row[:] = waiting.pop()

    try:
        yield {}, take
        library.get(tasks)
    finally:
        library.shutdown()


@contextmanager
def files(job: Job) -> Iterator[tuple[dict[str, Any], Take]]:
    """Read files with the workers of a torch DataLoader as they appear, in batches that the workers collate."""
    from torch.utils.data import DataLoader, Dataset

    form, folder = job.options["format"], Path(job.scratch)

    class Files(Dataset[Any]):
        def __len__(self) -> int:
            return job.total

        def __getitem__(self, index: int) -> NDArray[np.float32]:
            step, producer = divmod(index, job.producers)
            path = file_formats.path_of(form, folder, producer, step)
            while not path.exists():
                time.sleep(0.001)
            return file_formats.read(form, path, step)

    loader = DataLoader(Files(), batch_size=job.batch, num_workers=job.options["workers"], prefetch_factor=4)
    batches = iter(loader)

    def take(rows: NDArray[np.float32]) -> None:
        np.copyto(rows, next(batches).numpy())

    yield {"format": form, "folder": str(folder)}, take


@contextmanager
def memcpy(job: Job) -> Iterator[tuple[dict[str, Any], Take]]:
    """Copy one array into the rows."""
    values = np.random.default_rng(0).random(job.elements, dtype=np.float32)

    def take(rows: NDArray[np.float32]) -> None:
        for row in rows:
            np.copyto(row, values)

    yield {}, take


KINDS = {"raw": raw, "redis": redis, "ray": ray, "files": files, "memcpy": memcpy}


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    return port


def consume(job: Job, kind: str) -> None:
    """Measure a stream into batches, or into storage for all of it."""
    with KINDS[kind](job) as (where, take):
        tell(**where)
        rows = np.empty((job.batch or job.total, job.elements), np.float32)
        for first in range(0, job.warm_total, job.batch or job.warm_total):
            take(rows[: job.batch] if job.batch else rows[first : job.warm_total])
        tell(warm=True)
        await_word()
        provide_memory(job)
        meter = Meter()
        tell(started=True)
        if job.batch:
            for _ in range(job.producers * job.steps // job.batch):
                take(rows)
        else:
            take(rows[job.warm_total :])
        tell(**meter.figures(job.producers * job.steps))


def main() -> None:
    """Run from the command line."""
    kind, text = sys.argv[1:]
    job = Job.from_text(text)
    if kind == "redis" and shutil.which("redis-server") is None:
        return tell(cannot="redis-server is not installed (apt-get install redis-server)")
    try:
        if kind == "penstock":
            from performance.penstock_server_side import serve

            return serve(job)
        return consume(job, kind)
    except ModuleNotFoundError as missing:
        return tell(cannot=f"the Python package {missing.name} is not installed (pip install {missing.name})")


if __name__ == "__main__":
    main()
