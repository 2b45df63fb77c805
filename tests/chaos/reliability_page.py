"""Writes the tables of docs/reliability.md from docs/results/reliability.json and chaos.json."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from typing import Any

from rows import OUT, RESULTS, ROOT

PAGE = ROOT / "docs" / "reliability.md"
SHOWN = ("expected", "unique", "trained_unique", "duplicates_dropped")


def provenance_line(found: dict[str, Any]) -> str:
    return f"Made by `{found['command']}` at commit {found['commit']} on {found['date']}: {found['machine']}."


def rows_table(rows: list[dict[str, Any]]) -> Iterator[str]:
    columns = [
        "fault",
        "row",
        "expected",
        "unique",
        "trained",
        "duplicates dropped",
        "lives of the server",
        "s without training",
    ]
    columns += ["held-out relative L2", "lost or wrong"]
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    for row in rows:
        outages = ", ".join(f"{outage['seconds']:.1f}" for outage in row["outages"]) or "-"
        samples = " | ".join(str(row["samples"][name]) for name in SHOWN)
        wrong = "; ".join(row["wrong"]) or "nothing"
        yield (
            f"| {row['fault']} | `{row['row']}` | {samples} | {row['incarnations']} | {outages} | {row['relative_l2']:.4f} | {wrong} |"
        )
    yield ""
    commits = ", ".join(sorted({row["commit"] for row in rows}))
    yield f"Made by `python tests/chaos/rows.py` at commit {commits} on {rows[-1]['date']}: {rows[-1]['machine']}."


def soak_table(found: dict[str, Any]) -> Iterator[str]:
    report = found["report"]
    yield "| fault | times |"
    yield "|---|---|"
    for name, times in sorted(found["faults"].items(), key=lambda item: -item[1]):
        yield f"| {name.replace('_', ' ')} | {times} |"
    samples = {name: report["samples"][name] for name in (*SHOWN, "rejected")}
    yield ""
    yield (
        f"{sum(found['faults'].values())} faults in {found['seconds_of_faults']:.0f} s, {report['incarnations']} lives of the server. "
        f"Samples: {', '.join(f'{name} {number}' for name, number in samples.items())}. "
        f"Memory of the longest life, last quarter over second: {found['memory_growth']}. "
        f"{len(found['gave_up'])} times several workers in a row were killed before any simulation had finished: the study failed, "
        "saying so, and was resumed. "
        f"Lost, or left behind: {'; '.join(found['wrong']) or 'nothing'}.\n"
    )
    yield "![Memory of the server under the soak](results/chaos_memory.png)\n"
    yield provenance_line(found)


def replaced(text: str, name: str, lines: Iterator[str]) -> str:
    """The page with what stands between the marks <!-- name --> and <!-- /name --> replaced."""
    block = f"<!-- {name} -->\n" + "\n".join(lines) + f"\n<!-- /{name} -->"
    text, times = re.subn(f"<!-- {name} -->.*?<!-- /{name} -->", lambda _: block, text, flags=re.DOTALL)
    if times != 1:
        raise ValueError(f"{PAGE} has {times} places for {name!r}, expected one: <!-- {name} --> ... <!-- /{name} -->")
    return text


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    text = PAGE.read_text()
    text = replaced(text, "rows", rows_table(json.loads(OUT.read_text())["rows"]))
    soak = RESULTS / "chaos.json"
    if soak.is_file():
        text = replaced(text, "soak", soak_table(json.loads(soak.read_text())))
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
