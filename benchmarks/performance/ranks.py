"""Several trainer ranks: the cost of their agreement on a step, and two ranks against one."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from performance import training_runs
from performance.pairs import OURS, Figures, Row, in_turn
from performance.plan import Plan
from performance.processes import Failed, Talker, python

GROUP = "ranks"
BARE = "torch's all_reduce alone"
ONE = "one rank, one thread"
WEIGHTS = {"a vote": 0, "gradients of 10,000 weights": 10_000, "gradients of 1 million weights": 1_000_000}
STEP = "ms/step"


def measure(plan: Plan) -> None:
    """Measure the group."""
    for size in (2,) if plan.quick else (2, 4):
        for name, weights in WEIGHTS.items():
            wanted = {"": 1.0} if size == 2 and weights <= 10_000 else {}
            turns = in_turn({OURS: partial(_agree, size, weights, False), BARE: partial(_agree, size, weights, True)},
                            plan.rounds)  # fmt: skip
            plan.show(Row.of(GROUP, f"{name}, {size} ranks", STEP, turns, "less", wanted))
    seconds = 5.0 if plan.quick else 10.0
    things: dict[str, Callable[[], Figures]] = {
        OURS: partial(_train, plan, 2, seconds),
        ONE: partial(_train, plan, 1, seconds),
    }
    case = "2 ranks of 1 thread, 1 million weights, all data there"
    plan.show(Row.of(GROUP, case, "samples/s", in_turn(things, plan.rounds), wanted={ONE: 1.2}))


def _agree(size: int, weights: int, bare: bool) -> Figures:
    """Return the time of one call in which all ranks take part, with processes of their own on loopback."""
    with ExitStack() as stack:
        first = stack.enter_context(Talker(python("rank_process", 0, size, weights, int(bare))))
        address = json.dumps(first.hear()["address"])
        others = [
            stack.enter_context(Talker(python("rank_process", rank, size, weights, int(bare), address)))
            for rank in range(1, size)
        ]
        found = first.hear()
        for other in others:
            other.hear()
    return {STEP: found["milliseconds"]}


def _train(plan: Plan, ranks: int, seconds: float) -> Figures:
    """Return the throughput with the buffer filled and production ended."""
    found = training_runs.run(
        plan.scratch,
        {
            "solver.simulations": 20,
            "solver.options": {"rate": 1000.0, "steps": 100},
            "training.ranks": ranks,
            "training.threads": 1,
            "training.wall_time": seconds + 6,
        },
    )
    if found.after is None:
        raise Failed("the run was too short: fewer than two windows of a second")
    return {"samples/s": found.after.mean}
