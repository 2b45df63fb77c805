"""From the command line: points at which the solver fails for good are replaced by others, a bounded number of times."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import EXAMPLES, events, penstock, report

from penstock_server.checkpoint import load_latest
from penstock_server.ingest import Ledger

pytestmark = pytest.mark.slow

HEAT = EXAMPLES / "heat" / "study.toml"
TRAINING, HELD_OUT, STEPS = 30, 3, 20


def test_failed_simulations_are_replaced_under_new_ids(tmp_path: Path) -> None:
    (tmp_path / "breaking.py").write_text(
        "from penstock_solvers.problems.heat2d import Heat2D\n"
        "class Breaking(Heat2D):\n"
        "    def run(self, parameters):\n"
        "        for number, step in enumerate(super().run(parameters)):\n"
        "            if number == 7 and parameters['initial'] > 460:\n"
        "                raise RuntimeError('the plate has melted')\n"
        "            yield step\n"
    )
    study, out = tmp_path / "study.toml", tmp_path / "run"
    study.write_text(HEAT.read_text().replace('"heat2d"', '"breaking:Breaking"\non_failure = "redraw"\nretries = 1'))
    settings = (
        f"solver.simulations={TRAINING}",
        f"solver.validation_simulations={HELD_OUT}",
        "solver.options.points=12",
        f"solver.options.steps={STEPS}",
        "solver.concurrency=2",
        "buffer.watermark=20",
        "training.device=cpu",
    )
    printed = penstock("run", study, "--out", out, *(f"--set={setting}" for setting in settings))
    done = report(out)
    redrawn = {event["simulation"]: event["replacement"] for event in events(out, "redrawn")}
    assert sorted(redrawn.values()) == list(range(TRAINING + HELD_OUT, TRAINING + HELD_OUT + len(redrawn)))
    assert 0 < len(redrawn) <= TRAINING // 10
    assert f"{len(redrawn)} redrawn" in printed
    simulations = done["simulations"]
    assert (simulations["requested"], simulations["redrawn"]) == (TRAINING + HELD_OUT, len(redrawn))
    assert simulations["finished"] + simulations["failed"] == TRAINING + HELD_OUT
    assert {int(i) for i in done["failures"]} >= redrawn.keys()
    failed = [int(i) for i in done["failures"]]
    ledger = Ledger()
    ledger.load_state_dict(load_latest(out / "checkpoints").parts["ledger"]["trained"])
    training = [*range(TRAINING), *redrawn.values()]
    assert [ledger.count(i) for i in training] == [7 if i in failed else STEPS for i in training]
    samples = done["samples"]
    assert samples["expected"] == samples["unique"] == samples["trained_unique"] == ledger.total()
    assert samples["duplicates_dropped"] == 7 * len(failed)  # held-out ones among them
