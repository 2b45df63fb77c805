"""Coverage-guided fuzzing of every parser with atheris (libFuzzer): `python tests/fuzz/run.py [TARGET] [--messages N]`.

Without a target all of them share the messages, each in a process of its own. A finding ends a target: its traceback is printed
and the input kept (build/fuzz/TARGET-crash-...); `--replay FILE` runs such an input again. Exit code 1 when there were findings.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "build" / "fuzz"
MEASURED = 64  # one input in so many is run with its allocations measured, which slows it down
WARM = 0.1  # share of the messages after which memory is taken to have settled
MAX_GROWTH = 64 * 2**20  # bytes that a process may grow after that; the fuzzer's own corpus is in it
HANG_SECONDS = 20

sys.path[:0] = [str(ROOT / room) for room in ("clients", "solver_adapters", "server", "deploy")]


def fuzz(name: str, messages: int, seed: int) -> None:
    """Fuzz one target in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=["penstock_client", "penstock_server"]):
        from targets import MAX_BYTES, TARGETS, measured
    target, process = TARGETS[name], psutil.Process()
    done = inputs = settled = 0
    begun = time.monotonic()

    def held() -> int:
        gc.collect()  # rigs are cycles
        return process.memory_info().rss

    def one(data: bytes) -> None:
        nonlocal done, inputs, settled
        inputs += 1
        done += measured(target, data) if inputs % MEASURED == 0 else target(data)
        if not settled and done >= WARM * messages:
            settled = held()
        if done >= messages:
            rss = held()
            figures = {
                "target": name,
                "messages": done,
                "inputs": inputs,
                "seconds": round(time.monotonic() - begun, 1),
                "rss_settled_mib": round(settled / 2**20, 1),
                "rss_end_mib": round(rss / 2**20, 1),
            }
            assert rss - settled <= MAX_GROWTH, f"memory grew: {figures}"
            print(json.dumps(figures), flush=True)
            os._exit(0)  # libFuzzer has no way to be told that it is enough

    KEPT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as corpus:
        numbers = random.Random(seed)
        for i in range(32):
            (Path(corpus) / str(i)).write_bytes(numbers.randbytes(numbers.randrange(MAX_BYTES)))
        options = {
            "max_len": MAX_BYTES,
            "len_control": 0,
            "seed": seed,
            "timeout": HANG_SECONDS,
            "rss_limit_mb": 4096,
            "verbosity": 0,
            "artifact_prefix": f"{KEPT}/{name}-",
        }
        atheris.Setup([sys.argv[0], *(f"-{key}={value}" for key, value in options.items()), corpus], one)
        atheris.Fuzz()


def fuzz_all(messages: int, seed: int) -> int:
    """Every target in turn, one process each; prints the figures and returns how many had findings."""
    from targets import SHARES

    rows, failed = [], []
    for name, share in SHARES.items():
        command = [sys.executable, __file__, name, "--messages", str(round(share * messages)), "--seed", str(seed)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        figures = [line for line in done.stdout.splitlines() if line.startswith('{"target"')]
        if done.returncode or not figures:
            failed.append(name)
            print(done.stdout, done.stderr[-10_000:], flush=True)
            continue
        rows.append(json.loads(figures[-1]))
        row = rows[-1]
        print(
            f"{name:13} {row['messages']:9,} messages in {row['inputs']:7,} inputs  {row['seconds']:7.1f} s "
            f"{row['messages'] / max(row['seconds'], 0.1):9,.0f}/s   RSS {row['rss_settled_mib']:.0f} MiB, at the end "
            f"{row['rss_end_mib']:.0f} MiB",
            flush=True,
        )
    total, seconds = sum(r["messages"] for r in rows), sum(r["seconds"] for r in rows)
    print(f"{total:,} messages in {seconds:.0f} s, {len(failed)} targets with findings {' '.join(failed)}")
    return len(failed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", nargs="?")
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--replay", type=Path, help="run one input, as kept in build/fuzz")
    given = parser.parse_args()
    if given.target is None:
        return 1 if fuzz_all(given.messages, given.seed) else 0
    if given.replay is None:
        fuzz(given.target, given.messages, given.seed)
        return 0
    from targets import TARGETS, measured

    print(measured(TARGETS[given.target], given.replay.read_bytes()), "messages, no finding")
    return 0


if __name__ == "__main__":
    sys.exit(main())
