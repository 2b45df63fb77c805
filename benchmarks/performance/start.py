"""From the command to the first batch, and the server's memory."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from provenance import ROOT

from performance.job import SIZES, Job, in_scratch, run
from performance.pairs import OURS, Figures, Row, in_turn
from performance.plan import Plan
from performance.processes import Failed

GROUP = "start"
STUDY = ROOT / "examples" / "heat" / "study.toml"
SECONDS = "s from the command to the first batch"
BARE = {
    "inline": ("python that imports torch", "import torch\nprint('ready', flush=True)\n"),
    "ray": (
        "python that starts Ray with two actors that import torch",
        "import sys, ray\n"
        "ray.init('local', _temp_dir=sys.argv[1], include_dashboard=False, logging_level='ERROR', log_to_driver=False)\n"
        "@ray.remote(num_cpus=0)\n"
        "class Actor:\n"
        "    def ready(self):\n"
        "        import torch\n"
        "actors = [Actor.remote() for _ in range(2)]\n"
        "ray.get([actor.ready.remote() for actor in actors])\n"
        "print('ready', flush=True)\n"
        "ray.shutdown()\n",
    ),
}
WANTED = {"inline": 4.0, "ray": 12.0}  # seconds, of issue 14
PEAK = "peak memory GB"
MEMORY = {"40 KB": (5_000, 25_000), "400 KB": (2_500,)}  # capacities
PATIENCE = 120.0


def measure(plan: Plan) -> None:
    """Measure the group."""
    for engine, (name, program) in BARE.items():
        things = {OURS: partial(_first_batch, plan, engine), name: partial(_bare, plan, program)}
        turns = in_turn(things, plan.rounds)
        plan.show(Row.of(GROUP, f"examples/heat, engine {engine}", SECONDS, turns, "less", {"": WANTED[engine]}))
    for size, capacities in MEMORY.items():
        for capacity in capacities[:1] if plan.quick else capacities:
            gigabytes = 4e-9 * SIZES[size] * capacity
            allowed = f"1.15 x capacity x sample size + 1 GB ({1.15 * gigabytes + 1:.2f} GB)"
            turns = in_turn(
                {
                    OURS: partial(_memory, plan, SIZES[size], capacity),
                    allowed: partial(dict, {PEAK: 1.15 * gigabytes + 1}),
                    "capacity x sample size": partial(dict, {PEAK: gigabytes}),
                },
                1,
            )
            plan.show(Row.of(GROUP, f"server with {capacity:,} samples of {size}", PEAK, turns, "less", {allowed: 1.0}))


def _first_batch(plan: Plan, engine: str) -> Figures:
    """Return the seconds until metrics.jsonl has its first line, which is written directly after the first batch."""
    out = plan.scratch / "start"
    command = [sys.executable, "-m", "penstock.main", "run", str(STUDY), "--out", str(out)]
    begun = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--set", f"study.engine={engine}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    lines = out / "metrics.jsonl"
    try:
        while not (lines.is_file() and lines.stat().st_size):
            if process.poll() is not None or time.perf_counter() - begun > PATIENCE:
                raise Failed(f"penstock run has made no batch within {PATIENCE:.0f} s, exit code {process.poll()}")
            time.sleep(0.01)
        return {SECONDS: time.perf_counter() - begun}
    finally:
        _end(process)
        shutil.rmtree(out, ignore_errors=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Interrupt a study, which then removes what it has started; kill it where it takes too long."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _bare(plan: Plan, program: str) -> Figures:
    """Return the seconds until a program says that it is ready."""
    folder = plan.short_folder("s")
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        ready = any(line.strip() == b"ready" for line in iter(process.stdout.readline, b""))
        seconds = time.perf_counter() - begun
        process.stdout.read()
    shutil.rmtree(folder, ignore_errors=True)
    if not ready:
        raise Failed(f"python ended with {process.returncode}")
    return {SECONDS: seconds}


def _memory(plan: Plan, elements: int, capacity: int) -> Figures:
    """Return the most memory that a server has had whose buffer is full."""
    scratch = Path(in_scratch(plan.scratch, "memory"))
    try:
        return run(Job(elements, 1, 4, capacity - 4, 0, str(scratch)), "penstock", "penstock")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
