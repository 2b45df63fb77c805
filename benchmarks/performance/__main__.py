"""Measure how fast Penstock is, beside what people would use instead, and write docs/performance.md.

    python benchmarks/performance [GROUP ...] [--quick] [--rounds N] [--json FILE]

GROUP is one of: ingest, end-to-end, where, steady, solver, start, ranks; all of them by default, about 50 minutes, or 6
with --quick. Every figure is a ratio of two things that were measured in turn, as many times as there are rounds. A group
that cannot run on this machine says why in one line.

Without GROUP and --quick the figures go to docs/results/performance.json, and the page is written from them. Otherwise
they go to build/performance.json, and the page stays as it is, unless --update puts the groups into the page's figures.
"""

from __future__ import annotations

import argparse
import importlib
import json
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parent.parent
sys.path[0] = str(BENCHMARKS)  # in place of this folder

from provenance import ROOT, provenance  # noqa: E402

from performance.page import JSON, row_text, updated, write_page  # noqa: E402
from performance.pairs import CannotRun, Row, absent, one_line  # noqa: E402
from performance.plan import Plan  # noqa: E402

# The modules of each group; each of them has measure(plan).
GROUPS = {
    "ingest": ("ingest",),
    "end-to-end": ("end_to_end",),
    "where": ("where",),
    "steady": ("steady",),
    "solver": ("solver",),
    "start": ("start", "buffer_costs"),
    "ranks": ("ranks",),
}
ROUNDS, QUICK_ROUNDS = 3, 1


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}")
    parser.add_argument("--quick", action="store_true", help="fewer cases for a shorter time: about 6 minutes")
    parser.add_argument("--rounds", type=int, help=f"default: {ROUNDS}, or {QUICK_ROUNDS} with --quick")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--reverb-python", type=Path, help="the Python of an environment with dm-reverb")
    parser.add_argument("--update", action="store_true", help="put the groups into the figures of the page, too")
    parser.add_argument("--page", action="store_true", help="only write the page from the figures that are there")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.groups if name not in GROUPS]:
        parser.error(f"no group {unknown[0]!r}: expected one of {', '.join(GROUPS)}")
    if arguments.page:
        return write_page()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all processes are ended
    whole = not arguments.groups and not arguments.quick
    out: Path = arguments.json or (JSON if whole or arguments.update else ROOT / "build" / "performance.json")
    rows = measure(arguments)
    chosen = [*arguments.groups, *(["--quick"] if arguments.quick else [])]
    chosen += ["--rounds", str(arguments.rounds)] if arguments.rounds else []
    command = " ".join(["python benchmarks/performance", *chosen])
    out.parent.mkdir(parents=True, exist_ok=True)
    found = {**provenance(command), "rows": [row.as_json() for row in rows]}
    if arguments.update and out.is_file():
        found = updated(json.loads(out.read_text()), found)
    out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"written to {out}")
    if out == JSON:
        write_page()
    return None


def measure(arguments: Any) -> list[Row]:
    """Measure the groups that were asked for, and print each row as it comes."""
    rows: list[Row] = []

    def show(row: Row) -> None:
        rows.append(row)
        print(row_text(row), flush=True)

    rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        plan = Plan(arguments.quick, rounds, Path(folder), arguments.reverb_python, show)
        for name in arguments.groups or GROUPS:
            begun = time.monotonic()
            for module in GROUPS[name]:
                try:
                    importlib.import_module(f"performance.{module}").measure(plan)
                except CannotRun as reason:
                    show(absent(name, module, str(reason)))
                except Exception as error:
                    traceback.print_exc()
                    show(absent(name, module, f"{type(error).__name__}: {one_line(str(error))}"))
            print(f"# {name}: {time.monotonic() - begun:.0f} s", flush=True)
    return rows


if __name__ == "__main__":
    main()
