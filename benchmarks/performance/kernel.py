"""Measure one pass of the server's kernel over arriving values: C against numpy, and against a bare copy.

    python benchmarks/performance/kernel.py [--rounds 15] [--seconds 0.02]

For each number of values it prints the CPU time of `take` (copy, finiteness, statistics) in C and in numpy, and of
`np.copyto` into the same rows, in microseconds; and the ratios numpy over C and C over copy. The three run in turn, on
values that change from call to call as far as 64 MB allow, and every figure is a median over the rounds. A last table
has blocks of many small steps, and the time of a call that has nothing to do.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

from penstock_server import native
from penstock_server.native import library, plain

SIZES = (256, 10_000, 100_000, 2_000_000)
POOL_BYTES = 64_000_000


def microseconds(call: Callable[[], object], seconds: float) -> float:
    """Return the mean CPU time of a call, measured for `seconds` and at least once."""
    calls, start = 0, time.thread_time()
    while True:
        call()
        calls += 1
        if (passed := time.thread_time() - start) >= seconds:
            return passed / calls * 1e6


def measure(n: int, size: int, components: int, kind: str, rounds: int, seconds: float) -> list[float]:
    """Measure one shape.

    Args:
        n: rows of a call.
        size: values of a row.
        components: elements at each point.
        kind: dtype of the source.
        rounds: repetitions, each of all three.
        seconds: for one figure of one round.

    Returns:
        Medians of the microseconds of a call in C, in numpy and of a copy, and of the ratios numpy over C and C over
        copy within a round.
    """
    values = size // components * components
    calls = max(1, POOL_BYTES // (n * values * 8))
    source = np.random.default_rng(0).normal(1.0, 0.1, (calls, n, values)).astype(kind)
    destination = np.zeros((calls * n, values), np.float32)
    rows = np.arange(calls * n).reshape(calls, n)
    kernel, _ = library.load()
    if kernel is None:
        sys.exit(native.describe())
    places: Iterator[int] = itertools.cycle(range(calls))

    def taker(take: Callable[..., object]) -> Callable[[], object]:
        def call() -> object:
            i = next(places)
            return take(source[i], destination, rows[i], 0, components, 0.0)

        return call

    def copy() -> None:
        i = next(places)
        np.copyto(destination[i * n : (i + 1) * n], source[i], casting="same_kind")

    figures = [
        [microseconds(call, seconds) for call in (taker(native.take), taker(plain.take), copy)] for _ in range(rounds)
    ]
    ratios = [[f[1] / f[0], f[0] / f[2]] for f in figures]
    return [
        statistics.median(column) for column in zip(*(f + r for f, r in zip(figures, ratios, strict=True)), strict=True)
    ]


def table(title: str, shapes: list[tuple[int, int, int, str]], rounds: int, seconds: float) -> None:
    """Print the figures of several shapes, a line each."""
    print(f"{title}\n{'rows':>5} {'values':>9} {'comp.':>5} {'dtype':>8} {'C us':>9} {'numpy us':>10} {'copy us':>9} "
          f"{'numpy/C':>8} {'C/copy':>7} {'C ns/value':>10}")  # fmt: skip
    for n, size, components, kind in shapes:
        c, numpy, copy, faster, over_copy = measure(n, size, components, kind, rounds, seconds)
        print(
            f"{n:5} {size:9,} {components:5} {kind:>8} {c:9.2f} {numpy:10.2f} {copy:9.2f} {faster:8.1f} "
            f"{over_copy:7.2f} {c / (n * size) * 1e3:10.3f}",
            flush=True,
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.02)
    arguments = parser.parse_args()
    print(native.describe())
    shapes = [(1, size, c, kind) for size in SIZES for c in (1, 3) for kind in ("float32", "float64")]
    table("one time step a call", shapes, arguments.rounds, arguments.seconds)
    table("blocks of steps of 1 KB, and almost nothing", [(64, 256, 1, "float32"), (1, 3, 3, "float32")],
          arguments.rounds, arguments.seconds)  # fmt: skip


if __name__ == "__main__":
    main()
