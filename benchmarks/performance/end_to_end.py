"""Producers -> batches of 64: Penstock with its defaults beside what people would use instead.

Two producers send; one process makes batches of 64, on which nothing is trained. Penstock also checks every step and
keeps statistics; all others copy each step once into the batch. A row beside has Penstock with its smallest model
trained on each batch, whose arithmetic on a CPU takes longer than everything before it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from performance import in_reverb
from performance.file_formats import FORMATS
from performance.job import SIZES, Job, in_scratch, run, sized
from performance.pairs import OURS, Figures, Row, in_turn
from performance.plan import Plan

GROUP = "end to end"
BATCH, PRODUCERS = 64, 2
TRAINED = "Penstock, training its smallest model"
RAW, REDIS, RAY = "raw ZeroMQ over TCP, unencrypted, one copy", "Redis lists", "Ray queue"
FILES = {form: f"{form} files, DataLoader with 2 workers" for form in FORMATS}
SLOW = {RAY: 10, **dict.fromkeys(FILES.values(), 3)}  # they get so many times fewer time steps
# The bounds of issue 14, by size.
WANTED: dict[str, dict[str, float]] = {
    "1 KB": {RAW: 0.5, REDIS: 2.5},
    "40 KB": {RAW: 0.9, REDIS: 2.5, FILES["npy"]: 7.0, in_reverb.INSERT: 1.5, in_reverb.SAMPLE: 5.0},
    "400 KB": {RAW: 0.9, REDIS: 2.5, FILES["npy"]: 2.0},
}


def measure(plan: Plan) -> None:
    """Measure the group."""
    for size, bounds in WANTED.items():
        if plan.quick and size != "40 KB":
            continue
        turns = in_turn(things(plan, SIZES[size]), plan.rounds)
        case = f"{size}, {PRODUCERS} producers, batches of {BATCH}"
        plan.show(Row.of(GROUP, case, "samples/s", turns, wanted=bounds))


def things(plan: Plan, elements: int) -> Mapping[str, Callable[[], Figures]]:
    """Return the measurements for time steps of so many float32 values."""
    most, most_bytes = (6_000, 80_000_000) if plan.quick else (30_000, 400_000_000)

    # Clients hold small steps back until they fill a message: more than two messages.
    warm = 192 if elements < 10_000 else BATCH

    def job(name: str) -> Job:
        slower = SLOW.get(name, 1)
        return sized(Job(elements, PRODUCERS, warm, 0, BATCH, ""), most // slower, most_bytes // slower)

    def stream(name: str, consumer: str, producer: str | None, **options: Any) -> Figures:
        scratch = Path(in_scratch(plan.scratch, consumer))
        given = job(name)
        whole = Job(elements, PRODUCERS, warm, given.steps, BATCH, str(scratch), options)
        try:
            return run(whole, consumer, producer)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    ray_folder = str(plan.short_folder("r"))

    def ray_queue() -> Figures:
        try:
            return stream(RAY, "ray", None, ray_folder=ray_folder)
        finally:
            shutil.rmtree(ray_folder, ignore_errors=True)

    return {
        OURS: partial(stream, OURS, "penstock", "penstock", untrained=True),
        TRAINED: partial(stream, TRAINED, "penstock", "penstock"),
        RAW: partial(stream, RAW, "raw", "raw"),
        REDIS: partial(stream, REDIS, "redis", "redis"),
        **{name: partial(stream, name, "files", "files", format=form, workers=2) for form, name in FILES.items()},
        RAY: ray_queue,
        **in_reverb.things(plan, job(in_reverb.INSERT)),
    }
