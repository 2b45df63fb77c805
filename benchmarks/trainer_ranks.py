"""Train one study with one, two and four trainer ranks: same accounting, same error within the spread of seeds.

    python benchmarks/trainer_ranks.py [--ranks 1 2 4] [--seeds 1 2 3]

Batch, buffer and learning rate are the study's, whatever the number of ranks. On a machine with fewer cores than ranks,
more ranks are not faster. The throughput is given for machines with a device for each rank.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import mean, stdev

from provenance import RESULTS, ROOT, provenance

from penstock.compare import Variant, run_variant

STUDY = ROOT / "examples" / "heat" / "study.toml"
OUT = RESULTS / "trainer_ranks.json"
COMMON = {
    "solver.simulations": 60,
    "solver.options": {"points": 32, "steps": 50, "dt": 0.02},
    "buffer.capacity": 1200,
    "buffer.watermark": 100,
    "buffer.presentations_per_sample": 20,
    "training.threads": 1,
}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    made = provenance("python benchmarks/trainer_ranks.py")
    rows = []
    with tempfile.TemporaryDirectory(prefix="penstock-ranks-") as folder:
        for seed in arguments.seeds:
            for ranks in arguments.ranks:
                variant = Variant(f"{ranks} ranks", "online", seed, {"training.ranks": ranks})
                report = run_variant(STUDY, variant, Path(folder), COMMON).report
                samples = report["samples"]
                rows.append(
                    {
                        "ranks": ranks,
                        "seed": seed,
                        "batches": report["training"]["batches"],
                        "validation_error": report["validation"]["relative_l2"],
                        **{name: samples[name] for name in ("expected", "unique", "trained_unique", "presentations")},
                        "samples_per_second": report["training"]["samples_per_second"],
                    }
                )
                print(json.dumps(rows[-1]), flush=True)
    summary = {}
    for ranks in arguments.ranks:
        errors = [row["validation_error"] for row in rows if row["ranks"] == ranks]
        summary[str(ranks)] = {"mean_error": mean(errors), "spread": stdev(errors) if len(errors) > 1 else None}
        print(f"{ranks} ranks: {summary[str(ranks)]}")
    OUT.write_text(json.dumps({**made, "summary": summary, "rows": rows}, indent=2) + "\n")
    print(f"written to {OUT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
