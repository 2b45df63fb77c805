"""Run the laptop protocol of the SC 2023 artifact, and show the published table beside the results.

    python benchmarks/laptop_protocol [--seeds 1 2 3] [--policies offline fifo firo reservoir]

Offline: one epoch over the recorded stream through a DataLoader, 1,000 batches. FIFO and FIRO: each sample once, 1,000
batches. Reservoir: the published run drew 20,400 batches, because its production (about 100 samples/s) was slower than
its training. Here the solvers are faster than training, so they wait until each sample has been drawn as often
(`presentations_per_sample`).

Throughput while data arrive, and after, comes from a second run of the reservoir, half of whose batches are drawn with
production finished. Validation is not counted.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.console import Console
from rich.table import Table

from penstock.compare import Outcome, Variant, overrides, penstock, run_variant

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from provenance import RESULTS, provenance

STUDY = Path(__file__).with_name("study.toml")
OUT = RESULTS / "laptop_protocol.json"
PUBLISHED = {"offline": (1000, 118), "fifo": (1000, 900), "firo": (1000, 190), "reservoir": (20400, 35)}
SAMPLES, BATCH = 10_000, 10
CAPACITY, WATERMARK = 2_500, 500
THROUGHPUT_BATCHES = 6_000
WARM_UP_SECONDS = 5.0  # left out at the start of each phase: workers start, or the last ones end


def variant(policy: str, seed: int, recording: Path) -> Variant:
    """Return the run for one row of the table."""
    if policy == "offline":
        return Variant(policy, "offline", seed, {"training.source": str(recording), "training.epochs": 1})
    settings: dict[str, Any] = {"buffer.policy": policy}
    if policy == "reservoir":
        # Samples up to the watermark arrive before the first draw. At the end the buffer drains: the samples that it
        # holds, at most its capacity, are drawn once more.
        drawn = PUBLISHED[policy][0] * BATCH - CAPACITY
        settings["buffer.presentations_per_sample"] = drawn / (SAMPLES - WATERMARK)
    return Variant(policy, "online", seed, settings)


def both_phases(seed: int) -> Variant:
    """Return a run of the reservoir with half of its batches while data arrive and half with production finished."""
    settings = {
        "buffer.policy": "reservoir",
        "buffer.presentations_per_sample": THROUGHPUT_BATCHES / 2 * BATCH / SAMPLES,
        "training.min_batches": THROUGHPUT_BATCHES,
    }
    return Variant("throughput", "online", seed, settings)


def throughput(outcome: Outcome, after: bool) -> float | None:
    """Return the samples trained on per second while data arrive, or after; None if the phase is too short."""
    lines = [line for line in outcome.training if bool(line["production_ended"]) is after]
    if not lines:
        return None
    begin = lines[0]["training_seconds"] + WARM_UP_SECONDS
    kept = [line for line in lines if begin <= line["training_seconds"] and line["buffer_population"] > 0]
    if len(kept) < 3:
        return None
    seconds = kept[-1]["training_seconds"] - kept[0]["training_seconds"]
    return float((kept[-1]["presentations"] - kept[0]["presentations"]) / seconds)


def row(outcome: Outcome, phases: Outcome | None) -> dict[str, Any]:
    """Return the results file's entry for one run.

    Args:
        outcome: the run.
        phases: the run that throughput is read from; None for the same run.
    """
    report = outcome.report
    phases = phases or outcome
    return {
        "policy": outcome.variant.name,
        "seed": outcome.variant.seed,
        "batches": report["training"]["batches"],
        "validation_mse": report["validation"]["mse"],
        "validation_mse_lowest": min(line["mse"] for line in outcome.validations),
        "relative_l2": report["validation"]["relative_l2"],
        "samples_per_second": report["training"]["samples_per_second"],
        "samples_per_second_arriving": throughput(phases, after=False),
        "samples_per_second_after": throughput(phases, after=True),
    }


def show(rows: list[dict[str, Any]]) -> Table:
    """Return a table of our figures beside the published ones."""
    table = Table("policy", "batches", "validation MSE (K²)", "published", "samples/s arriving", "after", "ratio")
    for policy, (_, published) in PUBLISHED.items():
        own = [r for r in rows if r["policy"] == policy]
        if not own:
            continue
        errors = [r["validation_mse"] for r in own]
        spread = f" ± {stdev(errors):.0f}" if len(errors) > 1 else ""
        rates = [(r["samples_per_second_arriving"], r["samples_per_second_after"]) for r in own]
        both = [(a, b) for a, b in rates if a and b]
        arriving = [a for a, _ in rates if a]
        table.add_row(
            policy,
            f"{mean(r['batches'] for r in own):.0f}",
            f"{mean(errors):.0f}{spread}",
            str(published),
            f"{mean(arriving):.0f}" if arriving else "-",
            f"{mean(b for _, b in both):.0f}" if both else "-",
            f"{mean(a / b for a, b in both):.2f}" if both else "-",
        )
    return table


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--policies", nargs="+", choices=list(PUBLISHED), default=list(PUBLISHED))
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="penstock-laptop-") as folder:
        out = Path(folder)
        for seed in arguments.seeds:
            recording = out / f"recording-{seed}.h5"
            if "offline" in arguments.policies:
                changed = overrides({"study.seed": seed})
                penstock(["record", str(STUDY), "--out", str(recording), *changed], out / f"recording-{seed}.log")
            for policy in arguments.policies:
                outcome = run_variant(STUDY, variant(policy, seed, recording), out, {})
                phases = run_variant(STUDY, both_phases(seed), out, {}) if policy == "reservoir" else None
                rows.append(row(outcome, phases))
                print(json.dumps(rows[-1]), flush=True)
            recording.unlink(missing_ok=True)
    OUT.parent.mkdir(exist_ok=True)
    made = provenance("python benchmarks/laptop_protocol")
    OUT.write_text(json.dumps({**made, "published": PUBLISHED, "rows": rows}, indent=2) + "\n")
    Console().print(show(rows))
    print(f"written to {OUT.relative_to(RESULTS.parent.parent)}")


if __name__ == "__main__":
    main()
