"""Where the server's time goes between a message and a batch: CPU for each part of the path, sampled with py-spy."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from performance.job import SIZES, Job, in_scratch, run, sized
from performance.pairs import CannotRun, Row
from performance.plan import Plan

GROUP = "where"
FIGURE = "µs of CPU/sample"
ALL = "the whole server"
RECEIVE, INGEST, COPY = "ZeroMQ, headers, credit", "time steps, ledger", "copy, check, statistics (C)"
MERGE, BOOKS, GATHER = "statistics merged", "buffer's bookkeeping", "copy into the batch"
STEP, OTHER = "training step without a model", "other"
PARTS = (RECEIVE, INGEST, COPY, MERGE, BOOKS, GATHER, STEP, OTHER)
# The part of the innermost frame in one of these files; functions come before files.
_FUNCTIONS = {
    "Normaliser.merge": MERGE,
    "Normaliser._note_jumps": MERGE,
    "Moments.merge": MERGE,
    "Storage._gather": GATHER,
}
_FILES = {
    "penstock_server/network/": RECEIVE,
    "penstock_server/ingest/ingest.py": RECEIVE,
    "penstock_server/ingest/client_": RECEIVE,
    "penstock_server/ingest/": INGEST,
    "penstock_server/native/": COPY,
    "penstock_server/buffer/": BOOKS,
    "penstock_server/study/batch_memory.py": GATHER,
    "penstock_server/training/": STEP,
    "penstock_server/trainer_rank/": STEP,
    "penstock_client/": RECEIVE,
}


def measure(plan: Plan) -> None:
    """Measure the group."""
    if shutil.which("py-spy", path=str(Path(sys.executable).parent)) is None:
        raise CannotRun("py-spy is not installed: pip install '.[bench]'")
    for size, elements in list(SIZES.items())[:3]:
        most = (60_000, 800_000_000) if plan.quick else (300_000, 2_000_000_000)
        job = sized(Job(elements, 1, 192 if elements < 10_000 else 64, 0, 64, "", {"untrained": True}), *most)
        scratch = Path(in_scratch(plan.scratch, "where"))
        try:
            job = replace(job, scratch=str(scratch))
            cpu = run(job, "penstock", "penstock")["consumer CPU µs/sample"]
            stacks = scratch / "stacks"
            run(replace(job, options={**job.options, "stacks": str(stacks)}), "penstock", "penstock")
            shares = parts_of(stacks.read_text().splitlines())
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        values = {ALL: [cpu], **{part: [cpu * share] for part, share in shares.items()}}
        plan.show(Row(GROUP, size, FIGURE, "less", values, {}))


def parts_of(stacks: Iterable[str]) -> dict[str, float]:
    """Return the share of each part of the path.

    Args:
        stacks: lines of py-spy's raw format: frames from the outermost on, joined by semicolons, then a count.
    """
    counts = Counter(dict.fromkeys(PARTS, 0))
    for line in stacks:
        frames, _, count = line.rpartition(" ")
        if "_receive_all" in frames:  # the thread that receives also trains; others wait
            counts[_part(frames.split(";"))] += int(count)
    total = max(1, counts.total())
    return {part: counts[part] / total for part in PARTS}


def _part(frames: list[str]) -> str:
    for frame in reversed(frames):
        function, _, place = frame.partition(" (")
        if function in _FUNCTIONS:
            return _FUNCTIONS[function]
        for file, part in _FILES.items():
            if place.startswith(file):
                return part
    return OTHER
