"""A study that lasts long enough for workers, servers and clusters to come and go meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tomli_w
from command import report

SIMULATIONS, HELD_OUT, STEPS = 32, 2, 25
SERVER_TIMEOUT = 60  # seconds
PARAMETERS = ("initial", "left", "right", "bottom", "top")


def write_study(
    folder: Path,
    pause: float = 0.04,
    *,
    training: dict[str, Any] | None = None,
    server_timeout: float = SERVER_TIMEOUT,
    timeouts: dict[str, Any] | None = None,
    **solver: Any,
) -> Path:
    """Its simulations take 25 times `pause` seconds. training, timeouts, solver: further keys of these tables."""
    for module in ("paced_heat.py", "paced_training.py"):
        (folder / module).write_text((Path(__file__).parents[1] / module).read_text())
    study = {
        "study": {"name": "paced", "seed": 5},
        "parameters": {name: [100.0, 500.0] for name in PARAMETERS},
        "solver": {
            "adapter": "paced_heat:PacedHeat",
            "simulations": SIMULATIONS,
            "validation_simulations": HELD_OUT,
            "options": {"points": 16, "steps": STEPS, "pause": pause},
            **solver,
        },
        "fields": {"T": {}},
        "buffer": {"capacity": 300, "watermark": 20},
        "model": {"hidden": [64, 64]},
        "training": {
            "batch_size": 10,
            "loss": "paced_training:paced_mse",
            "device": "cpu",
            "threads": 1,
            "checkpoint_every": "1 s",
            **(training or {}),
        },
        "server": {"heartbeat": "500 ms", "server_timeout": f"{server_timeout} s", "client_timeout": "5 s"},
        "timeouts": timeouts or {},
    }
    path = folder / "study.toml"
    path.write_text(tomli_w.dumps(study))
    return path


def accounted(out: Path) -> dict[str, Any]:
    """Its report; each sample has come, and was trained on, once."""
    done = report(out)
    assert done["status"] == "finished", done["message"]
    samples, simulations = done["samples"], done["simulations"]
    assert samples["expected"] == samples["unique"] == samples["trained_unique"] == SIMULATIONS * STEPS
    assert samples["rejected"] == 0
    assert (simulations["finished"], simulations["failed"]) == (SIMULATIONS + HELD_OUT, 0)
    return done
