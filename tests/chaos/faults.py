"""Faults, done to a running study by real signals, real sockets and real disks. One that finds nothing to do returns False."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import zmq
from world import World

from penstock_client import Client, PenstockError
from penstock_client.connect_file import read_connect_file
from penstock_client.wire import Header, Kind

Fault = Callable[[World, random.Random], bool]


def _kill(world: World, kind: str, rng: random.Random) -> bool:
    pids = world.pids(kind)
    if not pids:
        return False
    with suppress(ProcessLookupError):
        os.kill(rng.choice(pids), signal.SIGKILL)
    return True


def kill_worker(world: World, rng: random.Random) -> bool:
    """SIGKILL to a local worker."""
    return _kill(world, "worker", rng)


def kill_all_workers(world: World, rng: random.Random) -> bool:
    """SIGKILL to all local workers at the same moment."""
    pids = world.pids("worker")
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(pids) > 1


def freeze_worker(world: World, rng: random.Random) -> bool:
    """SIGSTOP to a local worker, for good."""
    pids = world.pids("worker")
    if not pids:
        return False
    with suppress(ProcessLookupError):
        os.kill(rng.choice(pids), signal.SIGSTOP)
    return True


def nap_worker(world: World, rng: random.Random) -> bool:
    """SIGSTOP to a local worker, and SIGCONT after up to twice the time after which it is taken for dead."""
    pids = world.pids("worker")
    if not pids:
        return False
    pid = rng.choice(pids)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        time.sleep(rng.uniform(0.1, 2.0))
        os.kill(pid, signal.SIGCONT)
    return True


def nap_rank(world: World, rng: random.Random) -> bool:
    """SIGSTOP to the trainer rank, and SIGCONT a moment later: as on a machine that swaps."""
    pids = world.pids("rank")
    if not pids:
        return False
    with suppress(ProcessLookupError):
        os.kill(pids[0], signal.SIGSTOP)
        time.sleep(rng.uniform(0.1, 2.0))
        os.kill(pids[0], signal.SIGCONT)
    return True


def kill_rank(world: World, rng: random.Random) -> bool:
    """SIGKILL to a trainer rank."""
    return _kill(world, "rank", rng)


def kill_coordinator(world: World, rng: random.Random) -> bool:
    """SIGKILL to the coordinator."""
    return _kill(world, "coordinator", rng)


def kill_ray_head(world: World, rng: random.Random) -> bool:
    """SIGKILL to Ray's gcs_server."""
    return _kill(world, "gcs_server", rng)


def kill_raylet(world: World, rng: random.Random) -> bool:
    """SIGKILL to Ray's raylet."""
    return _kill(world, "raylet", rng)


def kill_server(world: World, rng: random.Random) -> bool:
    """SIGKILL to `penstock run` itself; nothing of it but workers of other launchers may go on. Needs `World.resume`."""
    if world.process is None or world.process.poll() is not None:
        return False
    family = world.family()
    world.process.kill()
    world.process.wait()
    _, alive = psutil.wait_procs(family, timeout=120)
    for process in alive:
        # One that was stopped before it could ask to be ended with its parent sees that it is an orphan when it goes on.
        with suppress(psutil.NoSuchProcess):
            process.resume()
    _, alive = psutil.wait_procs(alive, timeout=60)
    assert not alive, f"these outlived the server that had started them: {alive}"
    return True


def truncate_checkpoint(world: World, rng: random.Random) -> bool:
    """Cut the last checkpoint's largest file short; to be done while no server runs."""
    numbered = sorted(path for path in (world.out / "checkpoints").glob("*") if path.name.isdigit())
    if len(numbered) < 2:
        return False
    largest = max(numbered[-1].iterdir(), key=lambda path: path.stat().st_size)
    os.truncate(largest, rng.randrange(largest.stat().st_size))
    return True


def fill_disk(world: World, rng: random.Random) -> bool:
    """Fill the file system of the run directory, for a few seconds; it must be a small one of its own."""
    if shutil.disk_usage(world.out).total > 2**31:
        return False
    filler = world.out / "filler"
    try:
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(b"\0" * 2**20):
                pass
        time.sleep(rng.uniform(1.0, 5.0))
    finally:
        filler.unlink()
    return True


def corrupt_frames(world: World, rng: random.Random) -> bool:
    """A holder of the key who sends damaged messages to the coordinator and to a trainer rank."""
    try:
        info = read_connect_file(world.out / "connect.json")
        with Client(world.out / "connect.json", timeout=3.0) as client:
            endpoints = [info.control, *client.welcome.rank_endpoints]
    except PenstockError:
        return False  # the server is just being restarted
    valid = Header(rng.choice(list(Kind)), info.incarnation, rng.randrange(100), 1, 0).pack()
    with zmq.Context() as context:
        for endpoint in endpoints:
            with context.socket(zmq.DEALER) as socket:
                socket.curve_serverkey = info.server_public_key.encode()
                socket.curve_publickey = info.client_public_key.encode()
                socket.curve_secretkey = info.client_secret_key.encode()
                socket.linger = 500
                socket.connect(endpoint)
                for _ in range(20):
                    damaged = bytearray(valid)
                    for _ in range(rng.randrange(1, 8)):
                        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
                    socket.send_multipart(
                        [bytes(damaged[: rng.randrange(1, len(damaged) + 1)]), rng.randbytes(rng.randrange(200))]
                    )
    return True


def uninvited(world: World, rng: random.Random) -> bool:
    """Somebody without a key, and somebody with a key of his own making, knock at the coordinator's door."""
    try:
        info = read_connect_file(world.out / "connect.json")
    except PenstockError:
        return False
    with zmq.Context() as context:
        for own in (False, True):
            with context.socket(zmq.DEALER) as socket:
                if own:
                    socket.curve_serverkey = info.server_public_key.encode()
                    socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
                socket.linger = 0
                socket.connect(info.control)
                socket.send_multipart([rng.randbytes(80), b"let me in"])
                assert not socket.poll(300), "somebody without a key was answered"
    return True


def old_connect_file(world: World) -> Path:
    """A copy of connect.json as it is now, to come back with when the server has been restarted."""
    copy = world.folder / "old-connect.json"
    shutil.copy(world.out / "connect.json", copy)
    return copy
