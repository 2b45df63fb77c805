"""The costs of drawing from few and from many samples, and how long locks are held: what sampling.py measures, as rows."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from performance.pairs import OURS, CannotRun, Row, one_line
from performance.plan import Plan
from performance.processes import FOLDER, Failed

GROUP = "start"
SCRIPT = FOLDER / "sampling.py"
DRAWN = "draw and gather, capacity "
HELD = ", lock held at most"
SAME = 1.2  # cost at the larger capacity over that at the smaller, of issue 14
LOCK_MS = 5.0  # of issue 14


def measure(plan: Plan) -> None:
    """Run the script and show its rows."""
    if not SCRIPT.is_file():
        raise CannotRun(f"there is no {SCRIPT.name}")
    out = plan.scratch / "sampling.json"
    quick = ["--quick"] if plan.quick else []
    done = subprocess.run(
        [sys.executable, SCRIPT, "--json", out, "--rounds", str(max(3, plan.rounds)), *quick],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    if done.returncode:
        raise Failed(f"{SCRIPT.name} ended with {done.returncode}: {one_line(done.stderr)}")
    for row in rows(json.loads(out.read_text())["found"]):
        plan.show(row)


def rows(found: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the rows of what the script found: figures by policy, and by "locks, N samples"."""
    for policy, of in found.items():
        costs = of.get("microseconds", {})
        drawn = {name.removeprefix(DRAWN): values for name, values in costs.items() if name.startswith(DRAWN)}
        if len(drawn) == 2:
            few, many = sorted(drawn, key=float)
            ratios = [ours / theirs for ours, theirs in zip(drawn[many], drawn[few], strict=True)]
            case, other = f"a batch of 64 from {float(many):,.0f} samples of 1 KB, {policy}", f"from {float(few):,.0f}"
            values = {OURS: drawn[many], other: drawn[few]}
            yield Row(GROUP, case, "µs/sample", "less", values, {other: ratios}, {}, {other: SAME})
        for name, values in of.items():
            if name.endswith(HELD):
                case = f"{name.removesuffix(HELD)}: lock held at most ({policy.removeprefix('locks, ')})"
                yield Row(GROUP, case, "ms", "less", {OURS: values}, {}, {}, {"": LOCK_MS})
