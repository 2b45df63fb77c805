"""An ensemble of four on the lid-driven cavity: what it costs, what its mean gains, and whether its spread tells the error.

    python benchmarks/ensemble.py [--members 4] [--batches 3000] [--repeats 3]

The cavity's simulations (OpenFOAM, icoFoam) are recorded once. One model and an ensemble are then trained in turn on
this recording, with the same batches; the training time is that of the report, without validation and checkpoints. The
spread and the error of the mean are compared at every held-out time step.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from provenance import RESULTS, ROOT, provenance

from penstock_server.recording import Recording, RecordingReader
from penstock_server.surrogate import Surrogate

mpl.use("Agg")
from matplotlib import pyplot as plt

STUDY = ROOT / "examples" / "cavity" / "study.toml"
OUT = RESULTS / "ensemble.json"
PICTURE = RESULTS / "ensemble.png"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--batches", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--recording", type=Path, help="of the cavity, made by `penstock record`; default: make it")
    arguments = parser.parse_args()
    made = provenance(" ".join(["python benchmarks/ensemble.py", *sys.argv[1:]]))
    with tempfile.TemporaryDirectory(prefix="penstock-ensemble-") as folder:
        recording = arguments.recording or Path(folder) / "cavity.h5"
        if not recording.exists():
            _penstock("record", STUDY, "--out", recording)
        rows = []
        for repeat in range(arguments.repeats):
            for members in (1, arguments.members):
                run = Path(folder) / f"{members}-{repeat}"
                rows.append(_train(run, recording, members, arguments.batches))
                print(json.dumps(rows[-1]), flush=True)
        calibration = _calibration(Path(folder) / f"{arguments.members}-0", recording)
    seconds = {n: median(row["seconds"] for row in rows if row["members"] == n) for n in (1, arguments.members)}
    cost = seconds[arguments.members] / seconds[1]
    print(f"an ensemble of {arguments.members} takes {cost:.2f} times one model's training time")
    print(json.dumps({name: value for name, value in calibration.items() if name != "points"}))
    content = {**made, "cost": cost, "rows": rows, "calibration": calibration}
    OUT.write_text(json.dumps(content, indent=2) + "\n")
    print(f"written to {OUT.relative_to(ROOT)} and {PICTURE.relative_to(ROOT)}")


def _penstock(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "penstock.main", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _train(run: Path, recording: Path, members: int, batches: int) -> dict[str, Any]:
    settings = {
        "training.source": f'"{recording.absolute()}"',
        "training.members": members,
        "training.max_batches": batches,
        "training.validate_every": batches,
        "training.checkpoint_every": '"1 h"',
    }
    _penstock("run", STUDY, "--out", run, *(f"--set={key}={value}" for key, value in settings.items()))
    report = json.loads((run / "report.json").read_text())
    training, validation = report["training"], report["validation"]
    samples = report["samples"]["presentations"]
    return {
        "members": members,
        "batches": training["batches"],
        "seconds": samples / training["samples_per_second"],
        "relative_l2": validation["relative_l2"],
        **({"of_members": validation["members"]} if "members" in validation else {}),
    }


def _calibration(run: Path, recording: Path) -> dict[str, Any]:
    """Compare spread and error of the mean at all held-out time steps, and draw them."""
    surrogate, data = Surrogate.load(run), Recording.open(recording)
    reader, columns = RecordingReader(data, "step"), data.spec().columns()
    found: dict[str, list[tuple[float, float]]] = {}
    within: list[NDArray[np.bool_]] = []
    for simulation in data.validation():
        steps = int(data.steps[simulation])
        point = dict(zip(data.parameters, data.points[simulation].tolist(), strict=True))
        prediction = surrogate.predict(point, [float(k) for k in range(steps)])
        truth = reader.read(int(simulation), 0, steps)[1]
        for name, values in prediction.fields.items():
            difference = values.reshape(steps, -1) - truth[:, columns[name]]
            spread = prediction.spread[name].reshape(steps, -1)
            within.append((np.abs(difference) <= 2 * spread).ravel())
            pairs = zip(np.sqrt((spread**2).mean(axis=1)), np.sqrt((difference**2).mean(axis=1)), strict=True)
            found.setdefault(name, []).extend((float(s), float(e)) for s, e in pairs)
    _draw(found)
    figures: dict[str, Any] = {"within_two_spreads": float(np.concatenate(within).mean()), "fields": {}}
    for name, pairs in found.items():
        spread, error = np.array(pairs).T
        ranks = [np.argsort(np.argsort(values)) for values in (spread, error)]
        figures["fields"][name] = {
            "time_steps": len(pairs),
            "spread_to_error": float(np.sqrt((spread**2).mean() / (error**2).mean())),
            "rank_correlation": float(np.corrcoef(*ranks)[0, 1]),
        }
    return figures


def _draw(found: dict[str, list[tuple[float, float]]]) -> None:
    figure, axes = plt.subplots(1, len(found), figsize=(4.5 * len(found), 4.2), layout="constrained")
    for axis, (name, pairs) in zip(np.atleast_1d(axes), found.items(), strict=True):
        spread, error = np.array(pairs).T
        axis.loglog(spread, error, ".", markersize=3, alpha=0.5)
        ends = [min(spread.min(), error.min()), max(spread.max(), error.max())]
        axis.plot(ends, ends, "k-", linewidth=0.8, label="error = spread")
        axis.set(title=name, xlabel="spread over the members (root mean square)", ylabel="error of their mean")
        axis.legend()
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    main()
