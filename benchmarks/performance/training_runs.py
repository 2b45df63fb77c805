"""Runs of `penstock run` on the study of paced producers, and the throughputs in their metrics."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from performance.pairs import one_line
from performance.processes import FOLDER, Failed

STUDY = FOLDER / "study.toml"
SETTLE_SECONDS = 2.0  # left out at the start of a phase


@dataclass(frozen=True)
class Seconds:
    """The samples/s of each one-second window of a phase."""

    rates: list[float]

    @property
    def mean(self) -> float:
        """The mean over all windows."""
        return sum(self.rates) / len(self.rates)

    @property
    def worst(self) -> float:
        """The lowest of a window."""
        return min(self.rates)


@dataclass(frozen=True)
class Run:
    """A run of the study.

    Attributes:
        arriving: training while samples arrive; None if that was too short.
        after: training after production has ended; None if that was too short.
        report: the content of report.json.
    """

    arriving: Seconds | None
    after: Seconds | None
    report: dict[str, Any]


def run(scratch: Path, settings: Mapping[str, Any]) -> Run:
    """Run the study with some settings, in a folder that is then removed.

    Raises:
        Failed: it did not finish.
    """
    out = scratch / "run"
    shutil.rmtree(out, ignore_errors=True)
    changes = [part for key, value in settings.items() for part in ("--set", f"{key}={_toml(value)}")]
    command = [sys.executable, "-m", "penstock.main", "run", str(STUDY), "--out", str(out), *changes]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False
        )
        if done.returncode:
            raise Failed(f"penstock run ended with {done.returncode}: {one_line(done.stderr or done.stdout)}")
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        report = json.loads((out / "report.json").read_text())
    finally:
        shutil.rmtree(out, ignore_errors=True)
    training = [line for line in lines if line["kind"] == "train"]
    return Run(windows(training, ended=False), windows(training, ended=True), report)


def windows(lines: list[dict[str, Any]], *, ended: bool) -> Seconds | None:
    """Return the throughputs between the lines of a phase; the trainer writes a line about every second.

    Args:
        lines: of metrics.jsonl, about training.
        ended: whether the phase after production is meant.

    Returns:
        The samples/s of each window; None if there are fewer than two. The last window of a phase is left out, as the
        end of production or of the study falls into it.
    """
    phase = [line for line in lines if bool(line["production_ended"]) is ended]
    if not phase:
        return None
    begin = phase[0]["time"] + SETTLE_SECONDS
    kept = [line for line in phase if line["time"] >= begin][:-1]
    pairs = [(a, b) for a, b in pairwise(kept) if b["time"] - a["time"] > 0.5]
    rates = [(b["presentations"] - a["presentations"]) / (b["time"] - a["time"]) for a, b in pairs]
    return Seconds(rates) if len(rates) >= 2 else None


def _toml(value: Any) -> str:
    return json.dumps(value) if not isinstance(value, dict) else _inline_table(value)


def _inline_table(value: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f"{key} = {json.dumps(entry)}" for key, entry in value.items()) + "}"
