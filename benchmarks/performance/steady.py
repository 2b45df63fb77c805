"""Throughput of training while samples arrive, over that with no production, in the Ray engine with its defaults."""

from __future__ import annotations

from performance import training_runs
from performance.pairs import OURS, Figures, Row, Turns, one_line
from performance.plan import Plan
from performance.processes import Failed

GROUP = "steady"
RATES = (100, 1000)  # samples of 40 KB a second
PRODUCERS = 2
WITHOUT = "without production"
MEAN, WORST = 0.95, 0.85  # the bounds of issue 14


def measure(plan: Plan) -> None:
    """Measure the group: each round is one run, first with samples arriving, then without."""
    seconds = 8 if plan.quick else 12
    for rate in RATES[-1:] if plan.quick else RATES:
        mean, worst = Turns(), Turns()
        for _ in range(plan.rounds):
            try:
                arriving, after = phases(plan, rate, seconds)
            except Failed as error:
                mean.missing[OURS] = worst.missing[OURS] = one_line(str(error))
                break
            for turns, ours in ((mean, arriving.mean), (worst, arriving.worst)):
                turns.found.setdefault(OURS, []).append(_rate(ours))
                turns.found.setdefault(WITHOUT, []).append(_rate(after.mean))
            worst.found.setdefault("worst second without production", []).append(_rate(after.worst))
        case = f"{rate:,} samples of 40 KB a second"
        plan.show(Row.of(GROUP, f"{case}, mean", "samples/s", mean, wanted={WITHOUT: MEAN}))
        plan.show(Row.of(GROUP, f"{case}, worst second", "samples/s", worst, wanted={WITHOUT: WORST}))


def phases(plan: Plan, rate: int, seconds: float) -> tuple[training_runs.Seconds, training_runs.Seconds]:
    """Run the study; each phase lasts about `seconds`."""
    steps = 100
    simulations = max(PRODUCERS, round(rate * seconds / steps))
    found = training_runs.run(
        plan.scratch,
        {
            "solver.simulations": simulations,
            "solver.concurrency": PRODUCERS,
            "solver.options": {"rate": rate / PRODUCERS, "steps": steps},
            "buffer.watermark": min(200, rate),
            "training.wall_time": 2 * seconds + 4,
        },
    )
    if found.arriving is None or found.after is None:
        raise Failed("a phase of the run was too short: fewer than two windows of a second")
    return found.arriving, found.after


def _rate(value: float) -> Figures:
    return {"samples/s": value}
