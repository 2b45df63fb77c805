"""Measure what the buffer takes to put a sample, to draw a batch and to make a checkpoint, for few and for many samples.

    python benchmarks/performance/sampling.py [--quick] [--rounds N] [--json FILE]

About 3 minutes and 2 GB of memory, or 20 seconds and 0.3 GB with --quick. It prints medians of the rounds, with the
lowest and highest. Two things that are compared are measured in turn in each round, and their ratio is taken within the
round. Costs are CPU time of the thread, so a busy machine makes them little worse; the times for which the lock is held
are wall time, and want a machine with nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from penstock_server.buffer import Buffer
from penstock_server.study import FieldSpec, SampleSpec

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # in place of this folder

from provenance import provenance  # noqa: E402

BLOCK = 64  # samples of a block, and of a batch
KILOBYTE = SampleSpec(parameters=("a",), fields=(FieldSpec("u", 1, (254,)),))  # 1,024 bytes a sample
TINY = SampleSpec(parameters=("a",), fields=(FieldSpec("u", 1, (4,)),))  # 24 bytes a sample
LARGE = SampleSpec(parameters=("a",), fields=(FieldSpec("u", 1, (100_000,)),))  # 400 KB a sample
Figures = dict[str, list[float]]


class Gathers:
    """Sum of the time that a buffer spends copying batches.

    Args:
        buffer: the buffer, whose storage is made to keep the time.
    """

    def __init__(self, buffer: Buffer) -> None:
        self.seconds = 0.0
        storage = buffer._contents.storage
        gather = storage.gather

        def timed(slots: Any) -> Any:
            since = time.thread_time()
            batch = gather(slots)
            self.seconds += time.thread_time() - since
            return batch

        storage.gather = timed  # type: ignore[method-assign]


class TimedLock:
    """A lock that notes the longest time for which it was held, and the longest CPU time of the thread meanwhile.

    Args:
        lock: the lock; conditions that use it go on with it.
    """

    def __init__(self, lock: threading.Lock) -> None:
        self.longest, self.longest_cpu, self._lock = 0.0, 0.0, lock

    def __enter__(self) -> None:
        self._lock.acquire()
        self._since, self._cpu_since = time.perf_counter(), time.thread_time()

    def __exit__(self, *_: object) -> None:
        self.longest_cpu = max(self.longest_cpu, time.thread_time() - self._cpu_since)
        self.longest = max(self.longest, time.perf_counter() - self._since)
        self._lock.release()


def filled(spec: SampleSpec, policy: Any, capacity: int) -> Buffer:
    """Return a full buffer, all of whose samples have been written; half of a reservoir's have been seen.

    Args:
        spec: layout of a sample.
        policy: policy of the buffer.
        capacity: samples.
    """
    buffer = Buffer(spec, policy=policy, capacity=capacity, batch_size=BLOCK, spare=2 * BLOCK)
    put_blocks(buffer, capacity)
    if policy == "reservoir":
        for _ in range(capacity * 2 // 3 // BLOCK):
            buffer._contents.end_gather(buffer._contents.draw(buffer.policy.select, BLOCK, remove=False))
    return buffer


def put_blocks(buffer: Buffer, samples: int) -> float:
    """Put samples in blocks; returns the seconds of reserving and committing, without those of writing.

    Args:
        buffer: the buffer, with room for the samples.
        samples: number of samples.
    """
    seconds = 0.0
    for first in range(0, samples, BLOCK):
        since = time.thread_time()
        block = buffer.reserve_many(min(BLOCK, samples - first))
        seconds += time.thread_time() - since
        block.samples[:] = range(first, first + len(block))
        for row in block.rows.tolist():
            block.inputs[row] = block.targets[row] = 1.0
        since = time.thread_time()
        committed = buffer.try_commit_many(block)
        seconds += time.thread_time() - since
        if committed < len(block):
            raise RuntimeError(f"the buffer took {committed} of {len(block)} samples: {buffer.stats()}")
    return seconds


def put_singles(buffer: Buffer, samples: int) -> float:
    """Put samples one by one; as `put_blocks`."""
    seconds = 0.0
    for first in range(0, samples, BLOCK):
        since = time.thread_time()
        slots = [buffer.reserve() for _ in range(min(BLOCK, samples - first))]
        seconds += time.thread_time() - since
        for slot in slots:
            slot.inputs[:] = slot.targets[:] = 1.0
        since = time.thread_time()
        committed = [buffer.try_commit(slot) for slot in slots]
        seconds += time.thread_time() - since
        if not all(committed):
            raise RuntimeError(f"the buffer took {sum(committed)} of {len(slots)} samples: {buffer.stats()}")
    return seconds


def microseconds(buffer: Buffer, gathers: Gathers, batches: int) -> dict[str, float]:
    """Draw batches and put as many samples, and return what that takes, in microseconds a sample.

    Args:
        buffer: a full buffer.
        gathers: its time for copying.
        batches: number of batches.
    """
    drawing, putting = 0.0, [0.0, 0.0]
    gathers.seconds = 0.0
    # A put needs room, or a seen sample, and of the samples that a reservoir draws only some were unseen.
    draws = 2 if buffer.policy.keeps else 1
    for number in range(batches):
        for _ in range(draws):
            since = time.thread_time()
            batch = buffer.try_get(BLOCK)
            drawing += time.thread_time() - since
            if batch is None:
                raise RuntimeError(f"the buffer gave no batch: {buffer.stats()}")
        putting[number % 2] += (put_blocks, put_singles)[number % 2](buffer, BLOCK)
    scale = 1e6 / batches / BLOCK
    return {
        "draw": (drawing - gathers.seconds) * scale / draws,
        "gather": gathers.seconds * scale / draws,
        "draw and gather": drawing * scale / draws,
        "commit_many": putting[0] * 2 * scale,
        "commit": putting[1] * 2 * scale,
    }


def costs(policy: str, capacities: tuple[int, int], rounds: int, batches: int) -> tuple[Figures, list[float]]:
    """Measure one policy at two capacities in turn.

    Args:
        policy: policy of the buffers.
        capacities: the smaller and the larger.
        rounds: number of rounds.
        batches: puts and draws of a batch in each round; even.

    Returns:
        Microseconds a sample, by name; and resident bytes of the larger buffer over those of its samples.
    """
    small = filled(KILOBYTE, policy, capacities[0])
    before = psutil.Process().memory_info().rss
    large = filled(KILOBYTE, policy, capacities[1])
    memory = (psutil.Process().memory_info().rss - before) / (capacities[1] * KILOBYTE.bytes)
    buffers = [(small, Gathers(small)), (large, Gathers(large))]
    figures: Figures = {}
    for number in range(rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            buffer, gathers = buffers[which]
            size = f"{capacities[which]:.0e}".replace("e+0", "e")
            for name, value in microseconds(buffer, gathers, batches).items():
                figures.setdefault(f"{name}, capacity {size}", []).append(value)
    names = [f"{capacity:.0e}".replace("e+0", "e") for capacity in capacities]
    for what in ("draw", "gather", "draw and gather"):
        pairs = zip(*(figures[f"{what}, capacity {name}"] for name in names), strict=True)
        figures[f"{what}, {names[1]} : {names[0]}"] = [many / few for few, many in pairs]
    for name in names:
        pairs = zip(figures[f"commit, capacity {name}"], figures[f"commit_many, capacity {name}"], strict=True)
        figures[f"commit : commit_many, capacity {name}"] = [one / many for one, many in pairs]
    return figures, [memory]


def lock_times(samples: int) -> Figures:
    """Measure for how long the lock of a large reservoir is held at most, in milliseconds, while a producer puts.

    Args:
        samples: capacity.
    """
    buffer = filled(TINY, "reservoir", samples)
    figures: Figures = {}

    def held(what: str, call: Callable[[], Any]) -> Any:
        lock = TimedLock(buffer._lock)
        raw, buffer._lock = buffer._lock, lock  # type: ignore[assignment]
        since = time.perf_counter()
        result = call()
        figures.setdefault(f"{what}, whole", []).append(1e3 * (time.perf_counter() - since))
        figures.setdefault(f"{what}, lock held at most", []).append(1e3 * lock.longest)
        figures.setdefault(f"{what}, CPU with the lock at most", []).append(1e3 * lock.longest_cpu)
        buffer._lock = raw
        return result

    stop = threading.Event()

    def produce() -> None:
        while not stop.wait(0.001):
            block = buffer.reserve_many(BLOCK)
            if buffer.try_commit_many(block) < BLOCK:
                buffer.discard_many(block, block.settled)

    producer = threading.Thread(target=produce)
    producer.start()
    try:
        for _ in range(9):  # the thread may be interrupted while it has the lock, which says nothing about the buffer
            held("stats()", lambda: [buffer.stats() for _ in range(100)])
        state = held("state_dict()", buffer.state_dict)
        held("reading its samples", lambda: [np.asarray(state["arrays"][name]) for name in ("inputs", "targets")])
    finally:
        stop.set()
        producer.join()
    return figures


def producer_beside_draws(samples: int, rounds: int) -> Figures:
    """Measure how long a producer waits for the lock while large batches are drawn, in milliseconds.

    In turn: as the buffer is, and with the lock held while a batch is copied.

    Args:
        samples: capacity.
        rounds: number of rounds, of half a second each.
    """
    buffer = filled(LARGE, "reservoir", samples)
    storage, gather, lock = buffer._contents.storage, buffer._contents.storage.gather, buffer._lock

    def locked(slots: Any) -> Any:
        with lock:
            return gather(slots)

    figures: Figures = {}
    for number in range(rounds):
        for name in ("copied without lock", "copied with lock")[:: -1 if number % 2 else 1]:
            storage.gather = locked if name == "copied with lock" else gather  # type: ignore[method-assign]
            stop = threading.Event()
            training = threading.Thread(target=lambda stop=stop: [buffer.get(BLOCK) for _ in iter(stop.is_set, True)])
            training.start()
            waits, end = [], time.perf_counter() + 0.5
            while (since := time.perf_counter()) < end:
                slot = buffer.reserve()
                buffer.discard(slot)
                waits.append(1e3 * (time.perf_counter() - since))
                time.sleep(0.001)
            stop.set()
            training.join()
            figures.setdefault(f"{name}, mean", []).append(statistics.mean(waits))
            figures.setdefault(f"{name}, longest", []).append(max(waits))
    for what in ("mean", "longest"):
        pairs = zip(figures[f"copied with lock, {what}"], figures[f"copied without lock, {what}"], strict=True)
        figures[f"with : without lock, {what}"] = [locked / free for locked, free in pairs]
    return figures


def show(title: str, unit: str, figures: Figures) -> None:
    """Print figures as a table."""
    print(f"\n{title}")
    for name, values in figures.items():
        spread = f"   {min(values):9.2f} to {max(values):9.2f}" if len(values) > 1 else ""
        print(f"  {name:44} {statistics.median(values):9.2f} {'' if ':' in name else unit:3}{spread}", flush=True)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer samples and rounds: about 20 seconds")
    parser.add_argument("--rounds", type=int, help="default: 15, or 3 with --quick")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    rounds = arguments.rounds or (3 if arguments.quick else 15)
    capacities = (1000, 100_000 if arguments.quick else 1_000_000)
    samples = 500_000 if arguments.quick else 5_000_000
    found: dict[str, Any] = {}
    for policy in ("fifo", "firo", "reservoir"):
        figures, memory = costs(policy, capacities, rounds, 20 if arguments.quick else 200)
        show(f"{policy}, samples of 1 KB, blocks and batches of {BLOCK}, a sample:", "us", figures)
        show("  memory of the larger buffer", "", {"resident : capacity x sample size": memory})
        found[policy] = {"microseconds": figures, "memory": memory}
    found["producer beside draws"] = producer_beside_draws(500 if arguments.quick else 2000, rounds)
    show(
        "a producer reserves and discards a slot of 400 KB while batches of 64 are drawn:",
        "ms",
        found["producer beside draws"],
    )
    title = f"locks, {samples:,} samples"
    found[title] = lock_times(samples)
    show(f"{title} of {TINY.bytes} bytes:", "ms", found[title])
    print(f"resident memory of this process: {psutil.Process().memory_info().rss / 1e9:.2f} GB")
    if arguments.json:
        command = " ".join(["python benchmarks/performance/sampling.py", *sys.argv[1:]])
        arguments.json.write_text(
            json.dumps({**provenance(command), "rounds": rounds, "found": found}, indent=1) + "\n"
        )
        print(f"written to {arguments.json}")


if __name__ == "__main__":
    main()
