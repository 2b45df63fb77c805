"""The tables of docs/performance.md, written from docs/results/performance.json between two markers of the page."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from provenance import RESULTS, ROOT
from results_page import made_by, paragraph

from performance.pairs import Row, Spread

JSON = RESULTS / "performance.json"
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- written by benchmarks/performance: begin -->", "<!-- written by benchmarks/performance: end -->"
NOT_YET = "These figures have not been measured yet: `make bench` does it, and writes them here.\n"
TITLES = {
    "ingest": "Ingest",
    "end to end": "End to end",
    "where": "Where the server's time goes",
    "steady": "Steady training",
    "solver": "The solver's side",
    "start": "Start and memory",
    "ranks": "Several trainer ranks",
}


def number(value: float) -> str:
    """Return a number with three digits that count."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def spread_text(values: Sequence[float]) -> str:
    """Return the median with the lowest and the highest in brackets; a single value alone."""
    found = Spread.of(values)
    if len(values) == 1:
        return number(found.median)
    return f"{number(found.median)} ({number(found.low)} to {number(found.high)})"


def row_text(row: Row) -> str:
    """Return a row for the terminal."""
    lines = [f"{row.group}: {row.case}: {row.figure}"]
    if row.values.get(row.ours):
        lines.append(f"    {row.ours:<40} {spread_text(row.values[row.ours])}{_verdict(row, '')}")
    parts = {} if row.ratios else row.values
    lines += [f"    {name:<40} {spread_text(values)}" for name, values in parts.items() if name != row.ours]
    for other, ratios in row.ratios.items():
        lines.append(
            f"    / {other:<38} {spread_text(ratios)}   ({spread_text(row.values[other])}){_verdict(row, other)}"
        )
    lines += [f"    {name}: not measured: {reason}" for name, reason in row.missing.items()]
    return "\n".join(lines)


def _verdict(row: Row, other: str) -> str:
    reached = row.reaches(other)
    if reached is None:
        return ""
    sign = "≥" if row.better == "more" else "≤"
    return f"   wanted {sign} {row.wanted[other]:g}: {'reached' if reached else 'not reached'}"


def updated(before: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return figures with some groups measured anew, each with the command and commit of its own.

    Args:
        before: content of performance.json.
        new: likewise, of some groups.
    """
    groups = {row["group"] for row in new["rows"]}
    rows = [*new["rows"], *(row for row in before["rows"] if row["group"] not in groups)]
    order = list(TITLES)
    stamp = {name: value for name, value in new.items() if name != "rows"}
    return {
        **before,
        "rows": sorted(rows, key=lambda row: order.index(row["group"])),
        "anew": {**before.get("anew", {}), **dict.fromkeys(groups, stamp)},
    }


def tables(found: dict[str, Any] | None, shown: bool = False) -> str:
    """Return the text between the markers.

    Args:
        found: content of performance.json; None where nothing has been measured.
        shown: whether there is a picture of the end-to-end rates.
    """
    if found is None:
        return NOT_YET
    rows = [Row.from_json(entry) for entry in found["rows"]]
    parts = [made_by(found)]
    parts.append(
        paragraph(
            "Each ratio is the median over the rounds, with the lowest and the highest in brackets; within a round the "
            'two things ran one after the other. "Wanted" is the target that was set before measuring.'
        )
    )
    if shown:
        parts.append("![Samples per second into batches of 64](results/performance.png)\n")
    parts += _overview([row for row in rows if row.group == "end to end" and row.figure == "samples/s"])
    for group in dict.fromkeys(row.group for row in rows):
        parts.append(f"### {TITLES.get(group, group)}\n")
        if anew := found.get("anew", {}).get(group):
            parts.append(made_by(anew))
        of_group = [row for row in rows if row.group == group]
        measured = all(row.values for row in of_group)
        parts += _overview(of_group) if group == "where" and measured else _table(of_group)
    return "\n".join(parts)


def _overview(rows: list[Row]) -> Iterator[str]:
    """Yield a table of the medians: a line for each thing, a column for each case."""
    if not rows:
        return
    yield f"| {rows[0].figure} | " + " | ".join(row.case for row in rows) + " |"
    yield "|---|" + "---|" * len(rows)
    for name in dict.fromkeys(name for row in rows for name in row.values):
        cells = [number(statistics.median(row.values[name])) if name in row.values else "-" for row in rows]
        yield f"| {name} | {' | '.join(cells)} |"
    yield ""


def _table(rows: list[Row]) -> Iterator[str]:
    yield "| | figure | Penstock | against | it | ratio | wanted |"
    yield "|---|---|---|---|---|---|---|"
    missing: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        own = row.values.get(row.ours, [])
        name = "" if row.ours == "Penstock" else f" ({row.ours})"
        shown = spread_text(own) + name if own else "-"
        if own and (not row.ratios or "" in row.wanted):
            yield f"| {row.case} | {row.figure} | {shown} | - | - | - | {_wanted(row, '')} |"
        for other, ratios in row.ratios.items():
            cells = (row.case, row.figure, shown, other, spread_text(row.values[other]), spread_text(ratios))
            yield f"| {' | '.join(cells)} | {_wanted(row, other)} |"
        for thing, reason in row.missing.items():
            missing.setdefault((thing, reason), []).append(row.case)
    yield ""
    for (thing, reason), cases in missing.items():
        yield f"Not measured: {thing} ({'; '.join(dict.fromkeys(cases))}): {reason}.\n"


def _wanted(row: Row, other: str) -> str:
    return _verdict(row, other).removeprefix("   wanted ").replace(": ", ", ") or "-"


def replaced(page: str, text: str) -> str:
    """Return the page with other text between its markers; what people have written around them stays."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE} lacks one of its markers: {BEGIN!r}, {END!r}")
    return f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{after}"


def picture() -> Path:
    """Return the path of the picture."""
    return RESULTS / "performance.png"


def write_page() -> None:
    """Write the tables into docs/performance.md, and draw the picture."""
    from performance.picture import draw

    found = json.loads(JSON.read_text()) if JSON.is_file() else None
    shown = found is not None and draw([Row.from_json(entry) for entry in found["rows"]], picture())
    PAGE.write_text(replaced(PAGE.read_text(), tables(found, shown)))
    print(f"written to {PAGE}")
