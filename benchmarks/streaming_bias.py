"""Show the bias of a stream: simulations arrive sorted by a parameter, and each buffer policy trains on the same stream.

    python benchmarks/streaming_bias.py [--seeds 1 2 3]

The study is the heat example. The points of the parameter space are sorted by the sum of the five temperatures, so the
stream begins with cold plates and ends with hot ones. "shuffled" trains offline on the same samples in random order,
once (as FIFO and FIRO do) and as often as the reservoir does.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from provenance import RESULTS, ROOT, provenance

from penstock.compare import Outcome, Variant, overrides, penstock, run_variant
from penstock_server.plots.style import CYCLE, figure
from penstock_server.study import ParameterSpace, ParametersSection

OUT = RESULTS / "streaming_bias.json"
STUDY = ROOT / "examples" / "heat" / "study.toml"
NAMES = ("initial", "left", "right", "bottom", "top")
SIMULATIONS, HELD_OUT, STEPS, BATCH = 400, 20, 50, 16
CAPACITY = SIMULATIONS * STEPS // 4
PRESENTATIONS = 2

COMMON = {
    "study.engine": "inline",
    "solver.simulations": SIMULATIONS,
    "solver.validation_simulations": HELD_OUT,
    "solver.options": {"points": 32, "steps": STEPS, "dt": 0.02},
    "parameters.sampler": "file",
    "buffer.capacity": CAPACITY,
    "buffer.watermark": CAPACITY // 10,
    "training.batch_size": BATCH,
    "training.threads": 1,
    "training.device": "cpu",
    "training.checkpoint_every": 3600.0,
}


def points(seed: int, path: Path, *, ordered: bool) -> Path:
    """Write a file of parameters: training points, sorted or as drawn, then held-out ones; returns `path`."""
    section = ParametersSection(sampler="uniform", bounds=dict.fromkeys(NAMES, (100.0, 500.0)))
    space = ParameterSpace(section)
    training, held_out = space.draw(SIMULATIONS, seed), space.draw(HELD_OUT, seed, validation=True)
    if ordered:
        training = training[np.argsort(training.sum(axis=1))]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(NAMES)
        writer.writerows(np.concatenate([training, held_out]).tolist())
    return path


def variants(seed: int, folder: Path) -> list[Variant]:
    """Return the runs for one seed; all draw equally many batches except FIFO and FIRO, which use samples once."""
    ordered, drawn = (
        points(seed, folder / f"{name}-{seed}.csv", ordered=name == "sorted") for name in ("sorted", "drawn")
    )
    recording = folder / f"recording-{seed}.h5"
    stored = {**COMMON, "parameters.file": str(ordered), "study.seed": seed}
    penstock(["record", str(STUDY), "--out", str(recording), *overrides(stored)], folder / f"recording-{seed}.log")
    once = SIMULATIONS * STEPS // BATCH
    policies = {
        "fifo": {"buffer.presentations_per_sample": 0.0},
        "firo": {"buffer.presentations_per_sample": 0.0},
        "reservoir": {"buffer.presentations_per_sample": PRESENTATIONS, "training.max_batches": PRESENTATIONS * once},
    }
    out = []
    for order, file in (("sorted", ordered), ("as drawn", drawn)):
        for policy, settings in policies.items():
            changed = {"buffer.policy": policy, "parameters.file": str(file), **settings}
            out.append(Variant(f"{policy}, {order}", "online", seed, changed))
    for epochs in (1, PRESENTATIONS):
        source = {"training.source": str(recording), "parameters.file": str(ordered), "training.epochs": epochs}
        out.append(Variant(f"shuffled, {epochs} epoch{'s' * (epochs > 1)}", "offline", seed, source))
    return out


def row(outcome: Outcome) -> dict[str, Any]:
    """Return the results file's entry for one run."""
    report = outcome.report
    return {
        "variant": outcome.variant.name,
        "seed": outcome.variant.seed,
        "batches": report["training"]["batches"],
        "validation_error": report["validation"]["relative_l2"],
        "validation_mse": report["validation"]["mse"],
        "presentations": report["samples"]["presentations"],
    }


def draw(outcomes: Sequence[Outcome], path: Path) -> None:
    """Draw the error over batches for sorted and unsorted arrival, mean over seeds, with shuffled data in both."""

    def curves(axis: Axes, wanted: Callable[[str], bool]) -> None:
        names = [n for n in dict.fromkeys(o.variant.name for o in outcomes) if wanted(n)]
        for name, colour in zip(names, CYCLE, strict=False):
            runs = [o.validations for o in outcomes if o.variant.name == name]
            length = min(map(len, runs))
            errors = np.mean([[line["relative_l2"] for line in lines[:length]] for lines in runs], axis=0)
            style = "--" if name.startswith("shuffled") else "-"
            axis.plot([line["batches"] for line in runs[0][:length]], errors, style, color=colour, label=name)
        axis.set_yscale("log")
        axis.set_xlabel("batches")
        axis.set_ylabel("held-out relative L2 error")
        axis.legend()

    with figure(path, 9.5, 4.0) as drawing:
        left, right = drawing.subplots(1, 2, sharey=True)
        left.set_title("Simulations arrive sorted")
        right.set_title("Simulations arrive as drawn")
        curves(left, lambda name: "as drawn" not in name)
        curves(right, lambda name: "sorted" not in name)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    outcomes: list[Outcome] = []
    made = provenance("python benchmarks/streaming_bias.py")
    with tempfile.TemporaryDirectory(prefix="penstock-bias-") as text:
        folder = Path(text)
        for seed in arguments.seeds:
            for variant in variants(seed, folder):
                outcomes.append(run_variant(STUDY, variant, folder, {**COMMON, "training.validate_every": 125}))
                print(json.dumps(row(outcomes[-1])), flush=True)
    RESULTS.mkdir(exist_ok=True)
    draw(outcomes, RESULTS / "streaming_bias.png")
    rows = [row(outcome) for outcome in outcomes]
    means = {
        name: mean(r["validation_error"] for r in rows if r["variant"] == name)
        for name in dict.fromkeys(r["variant"] for r in rows)
    }
    about = {"simulations": SIMULATIONS, "capacity": CAPACITY, "samples": SIMULATIONS * STEPS}
    OUT.write_text(json.dumps({**made, **about, "mean_error": means, "rows": rows}, indent=2) + "\n")
    for name, error in means.items():
        print(f"{name}: {error:.4f}")
    print(f"written to {OUT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
