"""Measure what a simulation costs the server in studies of thousands of them, and what a connected client costs.

    python benchmarks/scale.py [--sizes 1000 5000 10000] [--clients 250 1000]

Simulations: short ones (five time steps of 1 KB) through 8 workers, each a process with a real client. The server is
the real coordinator and trainer rank with their sockets, in a process of its own. The first simulations, during which
the model is made and the buffer fills, are left out. Coordinator CPU is that of the coordinator's thread and of the
ZeroMQ thread that serves its socket; server CPU is that of the whole process, training included.

Clients: many real clients, in a few processes, connect to a server at once, hold a simulation each and send heartbeats
only. Then each sends one time step.

Prints tables and writes docs/results/scale.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock_client import Client

if TYPE_CHECKING:
    from penstock_server.engines.inline import InlineEngine
    from penstock_server.study import Study

# Imports that need torch are inside functions: every process started here imports this file, and clients need no torch.

WORKERS = 8
STEPS, POINTS = 5, 256
WARM = 400  # simulations at the beginning that the figures leave out
CROWD_PROCESSES = 4
IDLE_SECONDS = 10.0  # for which clients only send heartbeats
LOOK = 0.02  # seconds between two queries of the study's status

_spawn = multiprocessing.get_context("spawn")


def make_study(simulations: int) -> Study:
    """Return a study whose samples are each trained on about once, by a tiny model."""
    from penstock_server.study import Study

    return Study.model_validate(
        {
            "study": {"name": "scale", "engine": "inline"},
            "parameters": {name: [0.0, 1.0] for name in "abcde"},
            "solver": {"command": ["none"], "simulations": simulations},
            "fields": {"u": {}},
            "buffer": {"capacity": 500, "watermark": 100, "presentations_per_sample": 1},
            "model": {"name": "mlp", "hidden": [1]},
            "training": {"batch_size": 50, "device": "cpu", "checkpoint_every": 3600.0},
        }
    )


# The clients' side


def work(connect: Path, together: Barrier) -> None:
    """Serve simulation after simulation, once all workers are connected, until there are no more."""
    values = np.zeros(POINTS, np.float32)
    with Client(connect) as client:
        together.wait()
        for simulation in client.simulations():
            for step in range(STEPS):
                simulation.send(step, u=values)


def be_alive(connect: Path, number: int, pipe: Connection) -> None:
    """Run `number` clients at once, each holding a simulation, until told to leave."""
    together = threading.Barrier(number + 1)
    leave = threading.Event()

    def one() -> None:
        together.wait()
        with Client(connect, timeout=120) as client:
            simulation = client.next_simulation()
            assert simulation is not None
            together.wait()
            leave.wait()
            simulation.send(0, u=np.zeros(POINTS, np.float32))
            simulation.finish()

    threads = [threading.Thread(target=one) for _ in range(number)]
    for thread in threads:
        thread.start()
    pipe.send("there")
    pipe.recv()
    together.wait()
    together.wait()
    pipe.send("holding")
    pipe.recv()
    leave.set()
    for thread in threads:
        thread.join()


# The server's side


class Reading:
    """What this process, which runs a server, has used so far.

    Args:
        engine: the server.
    """

    def __init__(self, engine: InlineEngine) -> None:
        self.wall = time.perf_counter()
        self.server_cpu = time.process_time()
        self.coordinator_cpu = sum(_thread_seconds(thread) for thread in _coordinators_threads())
        self.messages = engine._metrics.total("messages_received")
        self.finished = engine.status().simulations.finished
        self.resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        self.files = len(list(Path("/proc/self/fd").iterdir()))


def _coordinators_threads() -> list[int]:
    """Return the ids of the coordinator's thread and of the thread in which ZeroMQ serves its socket."""
    (control,) = (thread.native_id for thread in threading.enumerate() if thread.name == "control")
    names = {int(task.name): (task / "comm").read_text() for task in Path("/proc/self/task").iterdir()}
    # The data socket is made first, then the control socket, each with a context of its own.
    _data, io = sorted(number for number, name in names.items() if name.startswith("ZMQbg/IO"))
    assert control is not None
    return [control, io]


def _thread_seconds(number: int) -> float:
    """Return the CPU seconds of a thread of this process."""
    return int(Path(f"/proc/self/task/{number}/schedstat").read_text().split()[0]) / 1e9


def serve(simulations: int, pipe: Connection, measure: Callable[[InlineEngine, Connection], dict[str, Any]]) -> None:
    """Run a server: send the path of its connect.json, then the figures that `measure` returns."""
    from penstock_server.engines.inline import InlineEngine

    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        engine = InlineEngine(make_study(simulations), Path(folder), threads=1)
        pipe.send(engine.start())
        figures = measure(engine, pipe)
        assert engine.wait(120), engine.status()
        report = engine.close()
        assert report["status"] == "finished", report
        assert report["samples"]["unique"] == report["samples"]["expected"], report["samples"]
        pipe.send(figures)


def measure_simulations(engine: InlineEngine, _pipe: Connection) -> dict[str, Any]:
    """Return the costs of a simulation, without the first WARM."""
    at_start = Reading(engine)
    simulations = engine.status().simulations.requested
    while engine.status().simulations.finished < WARM:
        time.sleep(LOOK)
    warm = Reading(engine)
    while engine.status().simulations.finished < simulations:
        time.sleep(LOOK)
    end = Reading(engine)
    number = end.finished - warm.finished
    return {
        "simulations": simulations,
        "measured": number,
        "simulations_per_second": number / (end.wall - warm.wall),
        "coordinator_cpu_ms": 1000 * (end.coordinator_cpu - warm.coordinator_cpu) / number,
        "server_cpu_ms": 1000 * (end.server_cpu - warm.server_cpu) / number,
        "messages": (end.messages - warm.messages) / number,
        "resident_mib_start": at_start.resident / 2**20,
        "resident_mib_warm": warm.resident / 2**20,
        "resident_mib_end": end.resident / 2**20,
        "resident_bytes": (end.resident - warm.resident) / number,
    }


def measure_clients(engine: InlineEngine, pipe: Connection) -> dict[str, Any]:
    """Return the costs of connected clients; the starting process relays between their processes and this one."""
    clients = engine.status().simulations.requested
    pipe.recv()  # the clients' processes have started
    before = Reading(engine)
    pipe.send("begin")
    while engine.status().simulations.running < clients:
        time.sleep(LOOK)
    seconds = time.perf_counter() - before.wall
    pipe.recv()  # all clients know that they hold a simulation
    idle = Reading(engine)
    time.sleep(IDLE_SECONDS)
    after = Reading(engine)
    pipe.send("end")
    messages = after.messages - idle.messages
    return {
        "clients": clients,
        "seconds_to_connect": seconds,
        "connect_cpu_ms": 1000 * (idle.server_cpu - before.server_cpu) / clients,
        "open_files": (after.files - before.files) / clients,
        "resident_kib": (after.resident - before.resident) / clients / 1024,
        "heartbeats_per_second": messages / (after.wall - idle.wall),
        "heartbeat_cpu_us": 1e6 * (after.coordinator_cpu - idle.coordinator_cpu) / messages,
    }


# Both together


class Server:
    """A server in a process of its own that measures itself.

    Args:
        simulations: number of simulations of its study.
        measure: the measurement; it returns figures by name.
    """

    def __init__(self, simulations: int, measure: Callable[[InlineEngine, Connection], dict[str, Any]]) -> None:
        self.pipe, theirs = _spawn.Pipe()
        self._process = _spawn.Process(target=serve, args=(simulations, theirs, measure))
        self._process.start()
        theirs.close()  # otherwise its death would not be noticed here
        self.connect = self.pipe.recv()

    def figures(self, others: list[Any]) -> dict[str, Any]:
        """Return its figures, after it and the other processes have ended."""
        found: dict[str, Any] = self.pipe.recv()
        for process in (*others, self._process):
            process.join()
            assert process.exitcode == 0, process
        return found


def simulations(number: int) -> dict[str, Any]:
    """Return the row for a study of `number` simulations."""
    server = Server(number, measure_simulations)
    together = _spawn.Barrier(WORKERS)
    workers = [_spawn.Process(target=work, args=(server.connect, together)) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    return server.figures(workers)


def clients(number: int) -> dict[str, Any]:
    """Return the row for `number` clients."""
    server = Server(number, measure_clients)
    pipes, crowd = [], []
    for place in range(CROWD_PROCESSES):
        share = number // CROWD_PROCESSES + (place < number % CROWD_PROCESSES)
        ours, theirs = _spawn.Pipe()
        crowd.append(_spawn.Process(target=be_alive, args=(server.connect, share, theirs)))
        crowd[-1].start()
        theirs.close()
        pipes.append(ours)

    def tell(word: str) -> None:
        for pipe in pipes:
            pipe.send(word)

    def hear() -> None:
        for pipe in pipes:
            pipe.recv()

    hear()
    server.pipe.send("all threads are there")
    server.pipe.recv()
    tell("connect")
    hear()
    server.pipe.send("all of them hold a simulation")
    server.pipe.recv()
    tell("leave")
    return server.figures(crowd)


COLUMNS = {
    "simulations": {
        "simulations_per_second": ("simulations/s", ".0f"),
        "coordinator_cpu_ms": ("coordinator CPU ms", ".3f"),
        "server_cpu_ms": ("server CPU ms", ".3f"),
        "messages": ("messages", ".2f"),
        "resident_mib_start": ("MiB at start", ".1f"),
        "resident_mib_warm": ("MiB warm", ".1f"),
        "resident_mib_end": ("MiB at end", ".1f"),
        "resident_bytes": ("bytes kept", ".0f"),
    },
    "clients": {
        "seconds_to_connect": ("s to connect", ".1f"),
        "connect_cpu_ms": ("CPU ms to connect", ".2f"),
        "open_files": ("open files", ".2f"),
        "resident_kib": ("KiB", ".1f"),
        "heartbeats_per_second": ("heartbeats/s", ".0f"),
        "heartbeat_cpu_us": ("CPU us a heartbeat", ".0f"),
    },
}


def show(kind: str, rows: list[dict[str, Any]]) -> None:
    """Print a table, and the figures of each further row as multiples of the first row's."""
    columns = COLUMNS[kind]
    print(f"{kind:>12} " + " ".join(f"{title:>20}" for title, _ in columns.values()))
    for row in rows:
        print(f"{row[kind]:>12} " + " ".join(f"{row[key]:>20{form}}" for key, (_, form) in columns.items()))
    for row in rows[1:]:
        ratios = " ".join(f"{row['ratios'].get(key, float('nan')):>20.2f}" for key in columns)
        print(f"{f'{row[kind]}/{rows[0][kind]}':>12} {ratios}")


def with_ratios(kind: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows; all but the first also have each figure's ratio to the first's, if that is above 0."""
    first, *others = rows
    known = [key for key in COLUMNS[kind] if first[key] > 0]
    return [first, *(row | {"ratios": {key: row[key] / first[key] for key in known}} for row in others)]


def main() -> None:
    """Run from the command line."""
    from provenance import RESULTS, provenance

    from penstock.study import make_openmp_wait_passively

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 5000, 10_000], help="simulations of a study")
    parser.add_argument("--clients", type=int, nargs="+", default=[250, 1000], help="connected at once")
    arguments = parser.parse_args()
    make_openmp_wait_passively()  # of the servers' training, as `penstock run` does
    found: dict[str, Any] = provenance("python benchmarks/scale.py")
    for kind, sizes, measure in (
        ("simulations", arguments.sizes, simulations),
        ("clients", arguments.clients, clients),
    ):
        found[kind] = with_ratios(kind, [measure(size) for size in sizes])
        show(kind, found[kind])
    RESULTS.mkdir(exist_ok=True)
    out = RESULTS / "scale.json"
    out.write_text(json.dumps(found, indent=2) + "\n")
    print(f"written to {out.relative_to(RESULTS.parent.parent)}")


if __name__ == "__main__":
    main()
