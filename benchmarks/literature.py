"""Compare the errors of the surrogates with those that their own papers report.

    python benchmarks/literature.py [--only fno mp_pde-E1 ...]

FNO: Navier-Stokes at viscosity 1e-3, 64 x 64, relative L2 error of the rollout (Li et al. 2021, table 1: 0.0128 with
1,000 trajectories, T = 50, given the first ten time units). MP-PDE: accumulated error of the rollout, the mean over
points of squared errors summed over time steps (Brandstetter et al. 2022, table 1: E1 1.55, E2 1.58, E3 4.26 at 100
points with 2,048 trajectories; here at 40, the coarsest of their grids).

Both are trained on a stream here, for minutes on one core: 3,000 and 10,000 steps of the optimizer. The authors take
500 epochs of 1,000 trajectories and, for MP-PDE, 20 epochs in each of which every trajectory is drawn 250 times
(640,000 steps).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from provenance import RESULTS, ROOT, provenance

from penstock.compare import Variant, run_variant

OUT = RESULTS / "literature.json"
COMMON = {
    "study.engine": "inline",
    "training.threads": 1,
    "training.device": "cpu",
    "training.checkpoint_every": 3600.0,
}
FNO = {
    "solver.simulations": 4000,
    "solver.options": {"points": 64, "begin": 10.0, "steps": 41, "viscosity": 1e-3, "initial_scale": 4.304},
    "buffer.capacity": 2000,
    "model.width": 20,
    "model.modes": 12,
    "model.projection": 32,
    "training.max_batches": 3000,
    "training.validate_every": 500,
    "training.scheduler": {"name": "onecyclelr", "max_lr": 3e-3, "total_steps": 3000},
}
MP_PDE = {
    "solver.simulations": 4000,
    "solver.options.highest_number": 2,
    "samples.window": 100,
    "buffer.capacity": 1000,
    "buffer.presentations_per_sample": 16,
    "model.hidden": 64,
    "training.pushforward": 2,
    "training.max_batches": 10000,
    "training.validate_every": 1000,
    "training.scheduler": {"name": "onecyclelr", "max_lr": 3e-3, "total_steps": 10000},
}
# The flux here is alpha u²; in the authors' data it is alpha u²/2. Every family is forced, and wave numbers are 1 or 2.
# A constant coefficient is an option and not a parameter: as an input of the model it would be noise.
FAMILIES: dict[str, dict[str, Any]] = {
    "E1": {"parameters": {"initial": "seed"}, "solver.options.alpha": 0.5},
    "E2": {"parameters": {"beta": [0.0, 0.2], "initial": "seed"}, "solver.options.alpha": 0.5},
    "E3": {"parameters.alpha": [0.0, 1.5], "parameters.beta": [0.1, 0.4], "solver.options.end": 2.0},
}
# A control without a published figure: it shows how much of E1's error comes from the forcing, which a model must infer
# from one bundle of time steps.
FAMILIES["E1-unforced"] = {**FAMILIES["E1"], "solver.options.forced": False}
PUBLISHED = {"fno": 0.0128, "mp_pde-E1": 1.55, "mp_pde-E2": 1.58, "mp_pde-E3": 4.26, "mp_pde-E1-unforced": None}


def settings(name: str) -> tuple[Path, dict[str, Any]]:
    """Return the study file of a case, and the settings that differ from it."""
    if name == "fno":
        return ROOT / "examples" / "navier_stokes_fno" / "study.toml", {**COMMON, **FNO}
    family = FAMILIES[name.partition("-")[2]]
    return ROOT / "examples" / "advection_mp_pde" / "study.toml", {**COMMON, **MP_PDE, **family}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(PUBLISHED), default=list(PUBLISHED))
    arguments = parser.parse_args()
    for name in arguments.only:
        study, changed = settings(name)
        made = provenance(f"python benchmarks/literature.py --only {name}")
        with tempfile.TemporaryDirectory(prefix="penstock-literature-") as folder:
            outcome = run_variant(study, Variant(name, "online", 1, changed), Path(folder), {})
        report = outcome.report
        rollout = report["validation"]["rollout"]
        accumulated = rollout["mse"] * len(rollout["steps"])
        row = {
            "case": name,
            "published": PUBLISHED[name],
            "error": rollout["relative_l2"] if name == "fno" else accumulated,
            "rollout_relative_l2": rollout["relative_l2"],
            "single_step_relative_l2": report["validation"]["relative_l2"],
            "rollout_steps": len(rollout["steps"]),
            "batches": report["training"]["batches"],
            "simulations": report["simulations"]["finished"],
            "wall_seconds": report["wall_seconds"],
            **made,
        }
        print(json.dumps(row), flush=True)
        # Read the file only now, since another run may have written it meanwhile.
        found = json.loads(OUT.read_text()) if OUT.is_file() else {"rows": []}
        found["rows"] = [r for r in found["rows"] if r["case"] != name] + [row]
        RESULTS.mkdir(exist_ok=True)
        OUT.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
