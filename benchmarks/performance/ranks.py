"""Several trainer ranks: the cost of their agreement on a step, and two ranks against one."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from performance import training_runs
from performance.pairs import OURS, Figures, Row, Turns, in_turn
from performance.plan import Plan
from performance.processes import Failed, Talker, python
from performance.rank_process import OPERATIONS

GROUP = "ranks"
BARE = "torch's all_reduce alone"
ONE = "one rank, one thread"
STEP = "ms/step"
WANTED = 1.0  # milliseconds on loopback, of issue 14


def measure(plan: Plan) -> None:
    """Measure the group."""
    for size in (2, 4):
        rounds = agree(size, 3 if plan.quick else 5)
        for name in OPERATIONS:
            turns = Turns({thing: [{STEP: ms} for ms in rounds[name][thing]] for thing in (OURS, BARE)})
            wanted = {"": WANTED} if size == 2 else {}
            plan.show(Row.of(GROUP, f"{name}, {size} ranks", STEP, turns, "less", wanted))
    if plan.quick:
        return
    things: dict[str, Callable[[], Figures]] = {OURS: partial(_train, plan, 2), ONE: partial(_train, plan, 1)}
    case = "2 ranks of 1 thread, 1 million weights, all data there"
    plan.show(Row.of(GROUP, case, "samples/s", in_turn(things, plan.rounds), wanted={ONE: 1.2}))


def agree(size: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Let ranks agree, each in a process of its own, on loopback.

    Args:
        size: number of ranks.
        rounds: how often each operation is measured, in turn with all_reduce alone.

    Returns:
        For each operation and thing the milliseconds of a call, one for each round.
    """
    with ExitStack() as stack:
        first = stack.enter_context(Talker(python("rank_process", 0, size, rounds)))
        address = json.dumps(first.hear()["address"])
        others = [
            stack.enter_context(Talker(python("rank_process", rank, size, rounds, address))) for rank in range(1, size)
        ]
        found: dict[str, dict[str, list[float]]] = first.hear()
        for other in others:
            other.hear()
    return {name: {OURS: of["group"], BARE: of["bare"]} for name, of in found.items()}


def _train(plan: Plan, ranks: int) -> Figures:
    """Return the throughput with the buffer filled and production ended."""
    found = training_runs.run(
        plan.scratch,
        {
            "solver.simulations": 20,
            "solver.options": {"rate": 1000.0, "steps": 100},
            "training.ranks": ranks,
            "training.threads": 1,
            "training.wall_time": 14.0,
        },
    )
    if found.after is None:
        raise Failed("the run was too short: fewer than two windows of a second")
    return {"samples/s": found.after.mean}
