"""Figures of one GPU: how it is fed, and what bfloat16 and torch.compile bring. benchmarks/gpu/run.sh runs this.

    python benchmarks/gpu/figures.py [--device cuda] [--seconds 240] [--tests "41 passed"] [--out docs/results/gpu.json]

The JSON file is written anew after each part. Parts that no time is left for are named in `left_out`, and the exit code is
then 1. `--device cpu` tries the script itself, at small sizes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from feeding import bandwidth, batches, stall
from provenance import RESULTS, provenance
from steps import PRECISIONS, STUDIES, step

Part = Callable[[torch.device], dict[str, Any]]


def parts() -> dict[str, list[Part]]:
    """Return what is measured, in this order, by the name of its list in the JSON file."""
    return {
        "bandwidth": [bandwidth],
        "batches": [batches],
        "stall": [stall],
        "steps": [
            lambda device, study=study, how=how: step(study, how, device) for study in STUDIES for how in PRECISIONS
        ],
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=240, help="no part begins later")
    parser.add_argument("--tests", default="not run", help="how the device tests ended")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.json")
    arguments = parser.parse_args()
    end, device = time.monotonic() + arguments.seconds, torch.device(arguments.device)
    card = torch.cuda.get_device_name() if device.type == "cuda" else "none"
    made = {**provenance("benchmarks/gpu/run.sh"), "card": card, "cuda": torch.version.cuda, "tests": arguments.tests}
    found: dict[str, Any] = {name: [] for name in parts()}
    left_out: list[str] = []
    for name, runs in parts().items():
        for run in runs:
            if time.monotonic() > end:
                left_out.append(name)
                continue
            found[name].append(run(device))
            print(name, json.dumps(found[name][-1]), flush=True)
            arguments.out.write_text(json.dumps({**made, **found, "left_out": left_out}, indent=2) + "\n")
    arguments.out.write_text(json.dumps({**made, **found, "left_out": left_out}, indent=2) + "\n")
    if left_out:
        sys.exit(f"no time was left for: {', '.join(left_out)}")


if __name__ == "__main__":
    main()
