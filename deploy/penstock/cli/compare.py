"""`penstock compare` on the command line: what to compare, and the files that come of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer


def compare(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="The study file (TOML).", show_default=False)],
    stored: Annotated[int, typer.Option(metavar="N", help="Training simulations that the offline dataset holds.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to write the tables and the figure.")],
    factors: Annotated[str, typer.Option(metavar="1,4,16", help="Dataset sizes, as multiples of --stored.")] = "1",
    policies: Annotated[str, typer.Option(metavar="NAMES", help="Buffer policies.")] = "fifo,firo,reservoir",
    seeds: Annotated[str, typer.Option(metavar="1,2,3", help="A run of each variant for each seed.")] = "1,2,3",
    jobs: Annotated[int, typer.Option(metavar="N", min=1, help="Runs at a time.")] = 1,
    keep: Annotated[bool, typer.Option("--keep-runs", help="Keep the run directories.")] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="table.key=value", help="Override a key of the study file; may be repeated."),
    ] = None,
) -> None:
    """Train a study online and on a recorded dataset, equal in everything else, and write a table and a figure."""
    from penstock.compare import Plan, compare, draw, improvement, markdown
    from penstock.study import settings_of

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
    (out / "comparison.json").write_text(json.dumps(found, indent=2) + "\n")
    (out / "comparison.md").write_text(table)
    draw(results, out / "comparison.png")
    print(table, end="")
    if "improvement" in found:
        print(f"online (reservoir) against offline: {found['improvement']:.0%} lower held-out error")
    print(f"written to {out}: comparison.json, comparison.md, comparison.png")


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 0:
        raise typer.BadParameter(f"{option} {text}: expected whole numbers with commas between, such as 1,4,16")
    return numbers
