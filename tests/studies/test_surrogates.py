"""The examples of the autoregressive surrogates, whole but short: seeds reach the solver, fields the model, rollouts the report."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from command import EXAMPLES, penstock, report

CASES = {
    "navier_stokes_fno": ("vorticity", {"solver.options.points": 16, "solver.options.steps": 6, "model.modes": 5}),
    "navier_stokes_unet": ("vorticity", {"solver.options.points": 16, "solver.options.steps": 6}),
    "advection_mp_pde": (
        "u",
        {"solver.options.steps": 100, "solver.options.end": 1.6, "model.hidden": 28, "model.layers": 2},
    ),
}
SHORT = {
    "study.engine": "inline",
    "solver.simulations": 30,
    "solver.validation_simulations": 2,
    "buffer.capacity": 60,
    "buffer.watermark": 10,
    "training.batch_size": 4,
    "training.max_batches": 60,
    "training.threads": 1,
    "training.validate_every": 30,
}


def settings(changes: dict[str, object]) -> list[str]:
    return [text for key, value in {**SHORT, **changes}.items() for text in ("--set", f"{key}={json.dumps(value)}")]


@pytest.mark.slow
@pytest.mark.parametrize("example", list(CASES))
def test_an_autoregressive_surrogate_from_its_example(example: str, tmp_path: Path) -> None:
    name, changes = CASES[example]
    out = tmp_path / "run"
    penstock("run", EXAMPLES / example / "study.toml", "--out", out, *settings(changes))
    found = report(out)
    assert found["training"]["batches"] == 60
    rollout = found["validation"]["rollout"]
    assert rollout["simulations"] == 2
    steps = changes["solver.options.steps"]
    bundle = 25 if example == "advection_mp_pde" else 1
    assert rollout["steps"] == list(range(bundle, int(str(steps))))
    history = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    errors = [line["relative_l2"] for line in history if line["kind"] == "validation"]
    assert errors[-1] < 1.0
    card = json.loads((out / "model" / "card.json").read_text())
    assert "initial" not in card["parameters"]  # a seed is no input
    assert card["bundle"] == bundle
    assert {path.name for path in map(Path, penstock("plot", out).split())} >= {"training.png", "rollout.png"}
    with h5py.File(out / "validation_snapshots.h5") as file:
        last = max((key for key in file if key.isdigit()), key=int)
        fields = [file[key][name]["true"][...] for key in ("0", last)]
    assert not np.allclose(*fields)  # two held-out simulations began with different fields
