"""Variants of one study, each run by its own `penstock run`, and the outcome of each."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tomli_w

from penstock.run import read_report
from penstock_client import PenstockError
from penstock_server.telemetry import read_lines

Source = Literal["offline", "online"]


class VariantFailed(PenstockError):
    """A run of a comparison did not end as it should."""


@dataclass(frozen=True)
class Variant:
    """One way to train.

    Attributes:
        name: of the row in tables, the same for all its seeds.
        source: where its samples come from: a recorded dataset or the stream.
        seed: [study] seed of this run.
        settings: table.key to value, laid over the study file.
    """

    name: str
    source: Source
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Name and seed: the name of its run directory."""
        return f"{self.name}-{self.seed}"


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run.

    Attributes:
        variant: what was run.
        report: the content of report.json.
        metrics: the lines of metrics.jsonl.
    """

    variant: Variant
    report: dict[str, Any]
    metrics: list[dict[str, Any]]

    @property
    def validations(self) -> list[dict[str, Any]]:
        """The lines about validation."""
        return [line for line in self.metrics if line["kind"] == "validation"]

    @property
    def training(self) -> list[dict[str, Any]]:
        """The lines about training."""
        return [line for line in self.metrics if line["kind"] == "train"]


def overrides(settings: Mapping[str, Any]) -> list[str]:
    """Write settings as arguments of the command line, `--set table.key=value`.

    Args:
        settings: table.key to value; a value that is a table replaces the one in the study file.

    Returns:
        Two arguments for each setting.
    """
    return [text for key, value in settings.items() for text in ("--set", f"{key}={_toml(value)}")]


def _toml(value: Any) -> str:
    """A value as TOML on one line: tables inline, which tomli_w does not write."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml_key(name)} = {_toml(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return tomli_w.dumps({"x": value}).removeprefix("x = ").removesuffix("\n")


def _toml_key(name: str) -> str:
    return tomli_w.dumps({name: 0}).removesuffix(" = 0\n")


def penstock(arguments: Iterable[str], log: Path) -> None:
    """Run the command line in a process of its own.

    Args:
        arguments: of `penstock`.
        log: file for its output.

    Raises:
        VariantFailed: it ended with an error; the message has the last lines of its output.
    """
    command = [sys.executable, "-m", "penstock.main", *arguments]
    with log.open("w") as output:
        code = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False
        ).returncode
    if code:
        last = "\n".join(log.read_text(errors="replace").strip().splitlines()[-8:])
        raise VariantFailed(f"penstock {' '.join(command[3:])}: exit code {code}:\n{last}\n(all of it: {log})")


def run_variant(study: Path, variant: Variant, out: Path, settings: Mapping[str, Any]) -> Outcome:
    """Run a variant to its end in `out`/<label>, and remove its checkpoints.

    Args:
        study: the study file.
        variant: what to run.
        out: folder of the run directories.
        settings: table.key to value; those of the variant override them.

    Returns:
        The outcome of the run.

    Raises:
        VariantFailed: the study did not finish.
    """
    directory = out / variant.label
    shutil.rmtree(directory, ignore_errors=True)
    arguments = {**settings, **variant.settings, "study.seed": variant.seed}
    penstock(["run", str(study), "--out", str(directory), *overrides(arguments)], out / f"{variant.label}.log")
    shutil.rmtree(directory / "checkpoints", ignore_errors=True)  # they hold the whole reservoir
    return read_outcome(variant, directory)


def read_outcome(variant: Variant, directory: Path) -> Outcome:
    """Read the outcome of a variant from its run directory.

    Raises:
        VariantFailed: the study did not finish, or was not validated.
        DamagedReport: its report cannot be read.
    """
    report = read_report(directory)
    if report is None or report["status"] != "finished" or report["validation"] is None:
        state = "no report" if report is None else f"status {report['status']!r} ({report['message']})"
        raise VariantFailed(f"{directory}: {state}: expected a finished study with held-out simulations")
    return Outcome(variant, report, list(read_lines(directory / "metrics.jsonl")))
