"""Compare online with offline training for four surrogates (ICML 2023), equal in batches, model and held-out points.

    python benchmarks/online_vs_offline.py [--models mlp fno unet mp_pde] [--seeds 1 2 3] [--jobs 2]

Each study is a smaller version of its example, run by `penstock compare` with the inline engine. `stored` is the number
of simulations in the smallest offline dataset. The curve over x1, x4 and x16 of it shows what more storage would gain.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from provenance import RESULTS, ROOT, provenance

from penstock.compare import Plan, compare, draw, improvement, markdown

OUT = RESULTS / "online_vs_offline.json"
COMMON = {
    "study.engine": "inline",
    "training.threads": 1,
    "training.device": "cpu",
    "training.checkpoint_every": 3600.0,
}


@dataclass(frozen=True)
class Experiment:
    """One model's comparison.

    Attributes:
        study: folder of the example.
        stored: simulations of the smallest offline dataset.
        why: reason for that number.
        settings: keys of the study file that differ from the example.
    """

    study: str
    stored: int
    why: str
    settings: dict[str, Any] = field(default_factory=dict)


EXPERIMENTS = {
    "mlp": Experiment(
        "heat",
        10,
        "two simulations for each of the five parameters: what a first design of experiments holds",
        {
            "solver.simulations": 4000,
            "solver.options": {"points": 32, "steps": 50, "dt": 0.02},
            "buffer.capacity": 2000,
            "buffer.presentations_per_sample": 4,
            "training.max_batches": 4000,
        },
    ),
    "fno": Experiment(
        "navier_stokes_fno",
        20,
        "at a production solver's price, about what fits on a workstation's disk: "
        "20 trajectories at 256 x 256 with 10,000 steps are 50 GB",
        {"solver.simulations": 4000, "buffer.capacity": 1000, "training.max_batches": 1500},
    ),
    "unet": Experiment(
        "navier_stokes_unet",
        20,
        "as for fno",
        {"solver.simulations": 4000, "buffer.capacity": 1000, "training.max_batches": 1000},
    ),
    "mp_pde": Experiment(
        "advection_mp_pde",
        32,
        "eight simulations for each of the three coefficients and the initial condition",
        {
            "solver.simulations": 4000,
            "buffer.capacity": 500,
            "buffer.presentations_per_sample": 4,
            "model.hidden": 32,
            "model.layers": 4,
            "training.max_batches": 700,
        },
    ),
}


def run(
    model: str, experiment: Experiment, seeds: tuple[int, ...], jobs: int, policies: tuple[str, ...]
) -> dict[str, Any]:
    """Run one model's comparison and draw its figure into docs/results; returns the entry of the results file."""
    study = ROOT / "examples" / experiment.study / "study.toml"
    batches = experiment.settings["training.max_batches"]
    settings = {**COMMON, **experiment.settings, "training.validate_every": batches // 10}
    plan = Plan(experiment.stored, factors=(1, 4, 16), policies=policies, seeds=seeds, jobs=jobs)
    with tempfile.TemporaryDirectory(prefix="penstock-compare-") as folder:
        results = compare(study, settings, plan, Path(folder), lambda text: print(f"{model}: {text}", flush=True))
        draw(results, Path(folder) / "figure.png")
        RESULTS.mkdir(exist_ok=True)
        shutil.copy(Path(folder) / "figure.png", RESULTS / f"online_vs_offline_{model}.png")
    rows = [{"model": model, **result.row()} for result in results]
    return {
        "study": f"examples/{experiment.study}/study.toml",
        "settings": settings,
        "stored": experiment.stored,
        "why": experiment.why,
        "improvement": improvement(rows),
        "improvement_rollout": improvement(rows, error="rollout_error") if rows[0]["rollout_error"] else None,
        "rows": rows,
        "table": markdown(rows),
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(EXPERIMENTS), default=list(EXPERIMENTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    found = json.loads(OUT.read_text()) if OUT.is_file() else {"models": {}}
    for model in arguments.models:
        policies = ("fifo", "firo", "reservoir") if model == "mlp" else ("reservoir",)
        made = provenance(f"python benchmarks/online_vs_offline.py --models {model}")
        one = run(model, EXPERIMENTS[model], tuple(arguments.seeds), arguments.jobs, policies)
        found["models"][model] = {**made, **one}
        print(one["table"])
        print(f"{model}: {one['improvement']:.1%} lower held-out error online")
        # The claim compares the smallest dataset with the reservoir. All other rows are under "models".
        found["rows"] = [
            row
            for each in found["models"].values()
            for row in each["rows"]
            if row["variant"] in ("offline x1", "online reservoir")
        ]
        found["improvement"] = {name: each["improvement"] for name, each in found["models"].items()}
        OUT.write_text(json.dumps(found, indent=2) + "\n")
    print(f"written to {OUT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
