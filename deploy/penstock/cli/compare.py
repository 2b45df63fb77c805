"""`penstock compare` on the command line: what to compare, and the files with the result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from penstock.cli.common import Overrides, StudyFile


def compare(
    study: StudyFile,
    stored: Annotated[int, typer.Option(metavar="N", help="Training simulations in the offline dataset.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the tables and the figure.")],
    factors: Annotated[str, typer.Option(metavar="1,4,16", help="Dataset sizes, as multiples of --stored.")] = "1",
    policies: Annotated[str, typer.Option(metavar="NAMES", help="Buffer policies.")] = "fifo,firo,reservoir",
    seeds: Annotated[str, typer.Option(metavar="1,2,3", help="Run each variant once with each seed.")] = "1,2,3",
    jobs: Annotated[int, typer.Option(metavar="N", min=1, help="How many runs at a time.")] = 1,
    keep: Annotated[bool, typer.Option("--keep-runs", help="Keep the run directories.")] = False,
    overrides: Overrides = None,
) -> None:
    """Train a study online and on a recorded dataset, all else equal, and write a table and a figure."""
    from penstock.compare import Plan, compare, draw, improvement, markdown
    from penstock.study import settings_of
    from penstock_server.telemetry import strict_json

    plan = Plan(
        stored=stored,
        factors=_numbers("--factors", factors),
        policies=tuple(name.strip() for name in policies.split(",")),
        seeds=_numbers("--seeds", seeds),
        jobs=jobs,
    )
    out.mkdir(parents=True, exist_ok=True)
    results = compare(study, settings_of(overrides or []), plan, out, lambda text: print(text, flush=True), keep=keep)
    rows = [result.row() for result in results]
    found: dict[str, Any] = {"study": str(study), "stored": stored, "rows": rows}
    if "reservoir" in plan.policies:
        found["improvement"] = improvement(rows, offline=f"offline x{plan.factors[0]}")
    table = markdown(rows)
    (out / "comparison.json").write_text(strict_json(found, indent=2) + "\n")
    (out / "comparison.md").write_text(table)
    draw(results, out / "comparison.png")
    print(table, end="")
    if "improvement" in found:
        print(f"online (reservoir) against offline: {found['improvement']:.0%} lower held-out error")
    print(f"written to {out}: comparison.json, comparison.md, comparison.png")


def _numbers(option: str, text: str) -> tuple[int, ...]:
    """The whole numbers in "1,4,16"."""
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 0:
        raise typer.BadParameter(f"{option} {text}: expected whole numbers with commas between, such as 1,4,16")
    return numbers
