"""Variants of one study, each run by a `penstock run` of its own, and what came of each."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from penstock.run import REPORT
from penstock_client import PenstockError

Source = Literal["offline", "online"]


class VariantFailed(PenstockError):
    """A run of a comparison did not end as it should."""


@dataclass(frozen=True)
class Variant:
    """One way to train: where its samples come from, and with which seed.

    name: of the row in tables, the same for all its seeds. settings: table.key to value, laid over the study file.
    """

    name: str
    source: Source
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"{self.name}-{self.seed}"


@dataclass(frozen=True)
class Outcome:
    """What a run came to: its report.json, and the lines of its metrics.jsonl."""

    variant: Variant
    report: dict[str, Any]
    metrics: list[dict[str, Any]]

    @property
    def validations(self) -> list[dict[str, Any]]:
        return [line for line in self.metrics if line["kind"] == "validation"]

    @property
    def training(self) -> list[dict[str, Any]]:
        return [line for line in self.metrics if line["kind"] == "train"]


def overrides(settings: Mapping[str, Any]) -> list[str]:
    """Settings as the command line's `--set table.key=value`; a table replaces the one in the study file."""
    return [text for key, value in settings.items() for text in ("--set", f"{key}={_toml(value)}")]


def _toml(value: Any) -> str:
    """On one line, as only inline tables are."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(name)} = {_toml(inner)}" for name, inner in value.items()) + "}"
    return json.dumps(value)  # text, numbers, booleans and lists are written alike in both


def penstock(arguments: Iterable[str], log: Path) -> None:
    """Run the command line in a process of its own, its output going to `log`. Raises VariantFailed with its last words."""
    command = [sys.executable, "-m", "penstock.main", *arguments]
    with log.open("w") as output:
        code = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False
        ).returncode
    if code:
        last = "\n".join(log.read_text(errors="replace").strip().splitlines()[-8:])
        raise VariantFailed(f"penstock {' '.join(command[3:])}: exit code {code}:\n{last}\n(all of it: {log})")


def run_variant(study: Path, variant: Variant, out: Path, settings: Mapping[str, Any]) -> Outcome:
    """Run a variant to its end in `out`/<label>; `settings` go below its own. Its checkpoints are removed afterwards.

    Raises VariantFailed unless the study finished.
    """
    directory = out / variant.label
    shutil.rmtree(directory, ignore_errors=True)
    arguments = {**settings, **variant.settings, "study.seed": variant.seed}
    penstock(["run", str(study), "--out", str(directory), *overrides(arguments)], out / f"{variant.label}.log")
    shutil.rmtree(directory / "checkpoints", ignore_errors=True)  # they hold the whole reservoir
    return read_outcome(variant, directory)


def read_outcome(variant: Variant, directory: Path) -> Outcome:
    """From a run directory. Raises VariantFailed unless the study finished and was validated."""
    report = json.loads((directory / REPORT).read_text())
    if report["status"] != "finished" or report["validation"] is None:
        raise VariantFailed(
            f"{directory}: status {report['status']!r} ({report['message']}): expected a finished study with held-out simulations"
        )
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return Outcome(variant, report, [json.loads(line) for line in lines])
