"""Measure how fast the buffer takes samples and returns batches, beside a bare torch gather of the same batches.

    python benchmarks/buffer.py [--batch-size 10] [--seconds 1.0]

For samples of 40 KB and 400 KB it prints puts per second (reserve, write, commit into a full reservoir, with
eviction), batches per second, those of `index_select` on a tensor of the same size with the same number of rows, and
the ratio of the two, as the median of interleaved rounds. Then it measures both at once from two threads, as in a
study, with a pause of 1 ms after each batch in place of a training step.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Callable

import numpy as np
import torch

from penstock_server.buffer import Buffer
from penstock_server.study import FieldSpec, SampleSpec

ROUNDS = 7
STORAGE_BYTES = 400_000_000  # far beyond the processor's caches


def rate(call: Callable[[], object], seconds: float) -> float:
    """Return the calls per second, measured for `seconds`."""
    calls, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds:
        call()
        calls += 1
    return calls / passed


def measure(width: int, batch_size: int, seconds: float) -> None:
    """Print the figures for one size of samples.

    Args:
        width: numbers in a sample's field.
        batch_size: samples of a batch.
        seconds: time to measure each figure for.
    """
    spec = SampleSpec(parameters=("a", "b", "c", "d", "e"), fields=(FieldSpec("u", 1, (width,)),))
    capacity = STORAGE_BYTES // spec.bytes
    buffer = Buffer(spec, policy="reservoir", capacity=capacity, batch_size=batch_size)
    row = np.ones((1, width), dtype=np.float32)

    def put() -> bool:
        slot = buffer.reserve()
        slot.inputs[:] = 1.0
        slot.targets[:] = row
        return buffer.commit(slot)

    def get() -> object:
        return buffer.get(batch_size)

    while buffer.stats().received < capacity:
        put()
    while buffer.stats().unseen:
        get()

    inputs = torch.ones(capacity, 1, spec.n_inputs)
    targets = torch.ones(capacity, 1, width)
    rng = np.random.default_rng(0)

    def bare() -> object:
        index = torch.from_numpy(rng.integers(0, capacity, batch_size))
        return torch.index_select(inputs, 0, index), torch.index_select(targets, 0, index)

    rounds = [tuple(rate(call, seconds / ROUNDS) for call in (get, bare)) for _ in range(ROUNDS)]
    batches, plain = (statistics.median(column) for column in zip(*rounds, strict=True))
    ratio = statistics.median(ours / theirs for ours, theirs in rounds)
    # Measured after the draws, because puts evict seen samples.
    puts = rate(put, min(seconds, 0.5 * capacity / 20_000))
    print(f"{spec.bytes / 1000:.0f} KB a sample, {capacity} samples, batches of {batch_size}")
    print(f"  puts          {puts:10,.0f} /s   {puts * spec.bytes / 1e9:6.2f} GB/s")
    print(f"  batches       {batches:10,.0f} /s   {batches * batch_size * spec.bytes / 1e9:6.2f} GB/s")
    print(f"  index_select  {plain:10,.0f} /s   {plain * batch_size * spec.bytes / 1e9:6.2f} GB/s")
    print(f"  batches : index_select = {ratio:.2f}")

    produced = 0

    def produce() -> None:
        nonlocal produced
        while put():
            produced += 1

    producer = threading.Thread(target=produce)
    producer.start()

    def step() -> None:
        get()
        time.sleep(0.001)

    beside = rate(step, seconds)
    both = produced / seconds
    buffer.close()
    producer.join()
    print(f"  at once       {both:10,.0f} puts/s and {beside:,.0f} batches/s")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch-size", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each figure")
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for width in (10_000, 100_000):
        measure(width, arguments.batch_size, arguments.seconds)


if __name__ == "__main__":
    main()
