"""Producers -> samples visible in the buffer, without training: beside raw ZeroMQ with one copy, and beside memcpy."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from performance.job import SIZES, Job, in_scratch, run, sized
from performance.pairs import OURS, CannotRun, Figures, Row, Turns, in_turn
from performance.plan import Plan

GROUP = "ingest"
RAW, RAW_CURVE, MEMCPY = "raw ZeroMQ, one copy", "raw ZeroMQ with CURVE, one copy", "memcpy"
RATE, CPU = "samples/s", "consumer CPU µs/sample"
PRODUCERS = (1, 4, 8)
# The bounds of issue 14.
SAME_NODE = {"400 KB": 2.0, "8 MB": 2.0}
ACROSS = {"40 KB": 0.9, "400 KB": 0.9, "8 MB": 0.9}
CPU_BOUND = {"1 KB": 15.0, "40 KB": 40.0}


def measure(plan: Plan) -> None:
    """Measure the group."""
    for producers in PRODUCERS[:2] if plan.quick else PRODUCERS:
        for size, elements in SIZES.items():
            if not (plan.quick and size == "8 MB"):
                job = _job(plan, elements, producers)
                turns = in_turn(_same_node(plan, job), plan.rounds)
                _show(plan, f"{size}, {_number(producers)}, same node", turns, SAME_NODE.get(size), RAW, size)
    with ExitStack() as stack:
        cable: Any = None
        reason = ""
        try:
            cable = stack.enter_context(_other_host())
        except CannotRun as missing:
            reason = str(missing)
        for producers in PRODUCERS[:1] if plan.quick else PRODUCERS[:2]:
            for size, elements in SIZES.items():
                if plan.quick and size in ("1 KB", "8 MB"):
                    continue
                job = _job(plan, elements, producers)
                turns = in_turn(_across(plan, job, cable), plan.rounds) if cable else Turns(missing={OURS: reason})
                _show(plan, f"{size}, {_number(producers)}, across", turns, ACROSS.get(size), RAW_CURVE, size)


def _job(plan: Plan, elements: int, producers: int) -> Job:
    # Clients hold small steps back until they fill a message: more than two messages.
    warm = 192 if elements < 10_000 else 4
    job = Job(elements, producers, warm, 0, 0, "")
    return sized(job, 8_000 if plan.quick else 30_000, 80_000_000 if plan.quick else 240_000_000)


def _stream(plan: Plan, job: Job, kind: str, through: list[str] | None, **options: Any) -> Figures:
    scratch = Path(in_scratch(plan.scratch, "ingest"))
    try:
        full = Job(job.elements, job.producers, job.warm, job.steps, 0, str(scratch), options)
        return run(full, kind, None if kind == "memcpy" else kind, through=through)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _same_node(plan: Plan, job: Job) -> dict[str, Callable[[], Figures]]:
    return {
        OURS: partial(_stream, plan, job, "penstock", None),
        RAW: partial(_stream, plan, job, "raw", None),
        RAW_CURVE: partial(_stream, plan, job, "raw", None, curve=True),
        MEMCPY: partial(_stream, plan, job, "memcpy", None),
    }


def _across(plan: Plan, job: Job, cable: Any) -> dict[str, Callable[[], Figures]]:
    through, options = cable.command(), {"host": cable.here, "apart": True}
    return {
        OURS: partial(_stream, plan, job, "penstock", through, **options),
        RAW_CURVE: partial(_stream, plan, job, "raw", through, curve=True, **options),
        MEMCPY: partial(_stream, plan, job, "memcpy", None),
    }


def _show(plan: Plan, case: str, turns: Turns, bound: float | None, other: str, size: str) -> None:
    plan.show(Row.of(GROUP, case, RATE, turns, wanted={} if bound is None else {other: bound}))
    if "same node" in case:
        cpu = {"": CPU_BOUND[size]} if size in CPU_BOUND else {}
        plan.show(Row.of(GROUP, case, CPU, turns, better="less", wanted=cpu))


def _number(producers: int) -> str:
    return f"{producers} producer{'s' if producers > 1 else ''}"


def _other_host() -> Any:
    """Return the context of a network namespace, which the tests make too.

    Raises:
        CannotRun: this user cannot make one.
    """
    if os.geteuid() != 0 or shutil.which("ip") is None:
        raise CannotRun("a network namespace needs root and iproute2")
    sys.path.append(str(Path(__file__).resolve().parents[2] / "tests" / "chaos"))
    from network_namespace import other_host

    return other_host()
