"""Train on a GPU and on CPUs: same accounting, comparable errors, and the ratio of the throughputs.

    python benchmarks/gpu/against_cpu.py [--device cuda] [--pairs 1]

Each pair runs a study on the CPUs and then on the device, with the inline engine, so production takes the same time in
both. The throughput is the report's: samples trained on per second of training, without validation and checkpoints.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import median

from penstock.compare import Variant, run_variant

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from provenance import ROOT, provenance

STUDIES = {
    "heat, mlp": (ROOT / "examples" / "heat" / "study.toml", {"model.hidden": [1024, 1024]}),
    "navier_stokes, fno": (
        ROOT / "examples" / "navier_stokes_fno" / "study.toml",
        {"solver.simulations": 100, "training.max_batches": 600, "training.validate_every": 200},
    ),
}
COMMON = {"study.engine": "inline"}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--out", type=Path, help="also write the figures to this JSON file")
    arguments = parser.parse_args()
    rows = []
    wrong = []
    with tempfile.TemporaryDirectory(prefix="penstock-gpu-") as folder:
        for name, (study, settings) in STUDIES.items():
            ratios = []
            for pair in range(arguments.pairs):
                rates = {}
                for device in ("cpu", arguments.device):
                    variant = Variant(f"{name} {device} {pair}", "online", 7, {**settings, "training.device": device})
                    report = run_variant(study, variant, Path(folder), COMMON).report
                    samples, training = report["samples"], report["training"]
                    rates[device] = training["samples_per_second"]
                    rows.append(
                        {
                            "study": name,
                            "device": training["device"],
                            "batches": training["batches"],
                            "samples_per_second": training["samples_per_second"],
                            "validation_error": report["validation"]["relative_l2"],
                            **{key: samples[key] for key in ("expected", "unique", "trained_unique", "rejected")},
                        }
                    )
                    print(json.dumps(rows[-1]), flush=True)
                    if samples["rejected"] or samples["unique"] != samples["expected"]:
                        wrong.append(f"{name} on {device}: {samples}")
                ratios.append(rates[arguments.device] / rates["cpu"])
            print(f"{name}: {arguments.device} / cpu = {median(ratios):.2f} times the samples per second")
    if arguments.out is not None:
        made = provenance("python benchmarks/gpu/against_cpu.py")
        arguments.out.write_text(json.dumps({**made, "rows": rows}, indent=2) + "\n")
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
