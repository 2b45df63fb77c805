"""What benchmarks/performance is made of: things in turn, ratios, processes that end, and the page that keeps its text."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waiting import PATIENCE

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

from performance import page  # noqa: E402
from performance.buffer_costs import rows  # noqa: E402
from performance.pairs import OURS, CannotRun, Figures, Row, Spread, Turns, absent, in_turn  # noqa: E402
from performance.processes import Failed, Talker  # noqa: E402
from performance.training_runs import windows  # noqa: E402
from performance.where import COPY, INGEST, MERGE, RECEIVE, parts_of  # noqa: E402

RATE = "samples/s"


def test_things_are_measured_in_turn_and_every_second_round_goes_backwards() -> None:
    order: list[str] = []

    def thing(name: str) -> Figures:
        order.append(name)
        return {RATE: float(len(order))}

    turns = in_turn({name: lambda name=name: thing(name) for name in ("a", "b")}, 3)  # type: ignore[misc]
    assert "".join(order) == "abbaab"
    assert turns.values("a", RATE) == [1, 4, 5]
    assert turns.values("b", RATE) == [2, 3, 6]


def test_a_ratio_is_taken_within_a_round() -> None:
    # The machine becomes ten times slower, for both things: their ratio is the same.
    turns = Turns({OURS: [{RATE: 20.0}, {RATE: 2.0}], "other": [{RATE: 10.0}, {RATE: 1.0}]})
    assert turns.ratios(OURS, "other", RATE) == [2.0, 2.0]
    assert turns.ratios(OURS, "unknown", RATE) == []


def test_what_cannot_run_says_so_in_a_line_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    def lacking() -> Figures:
        raise CannotRun("redis-server is not installed")

    def broken() -> Figures:
        raise ValueError("first\nlast line\n")

    turns = in_turn({OURS: lambda: {RATE: 1.0}, "redis": lacking, "broken": broken}, 2)
    assert turns.missing == {"redis": "redis-server is not installed", "broken": "ValueError: last line"}
    assert turns.values(OURS, RATE) == [1.0, 1.0]
    assert "Traceback" in capsys.readouterr().err
    row = Row.of("ingest", "1 KB", RATE, turns)
    assert "redis: not measured: redis-server is not installed" in page.row_text(row)


def test_a_thing_that_fails_in_a_later_round_is_left_out_of_all() -> None:
    answers = iter([{RATE: 1.0}])
    turns = in_turn({OURS: lambda: {RATE: 1.0}, "other": lambda: next(answers)}, 2)
    assert turns.found.keys() == {OURS}
    assert turns.missing.keys() == {"other"}


@given(st.lists(st.floats(-1e9, 1e9), min_size=1))
def test_the_median_lies_between_lowest_and_highest(values: list[float]) -> None:
    spread = Spread.of(values)
    assert min(values) == spread.low <= spread.median <= spread.high == max(values)


def some_row() -> Row:
    turns = Turns(
        {OURS: [{RATE: 90.0}, {RATE: 80.0}, {RATE: 100.0}], "raw": [{RATE: 100.0}] * 3},
        {"Reverb": "it is not installed"},
    )
    return Row.of("end to end", "40 KB, 2 producers", RATE, turns, wanted={"raw": 0.9, "": 95.0})


def test_a_row_survives_its_json() -> None:
    row = some_row()
    entry = json.loads(json.dumps(row.as_json()))
    assert Row.from_json(entry) == row
    assert entry["ratio_medians"] == {"raw": 0.9}


def test_bounds_hold_for_medians_and_in_the_direction_that_is_better() -> None:
    row = some_row()
    assert row.reaches("raw") is True
    assert row.reaches("") is False
    assert row.reaches("Reverb") is None
    cpu = Row("ingest", "1 KB", "µs", "less", {OURS: [14.0]}, {}, {}, {"": 15.0})
    assert cpu.reaches("") is True


FOUND = {
    "command": "python benchmarks/performance", "commit": "abc", "date": "2026-01-01", "machine": "a machine",
    "torch": "2", "python": "3.11",
}  # fmt: skip


def test_the_page_has_a_line_for_each_ratio_and_one_for_what_is_missing() -> None:
    rows = [some_row(), absent("solver", "solver", "OpenFOAM is not installed")]
    text = page.tables({**FOUND, "rows": [row.as_json() for row in rows]})
    assert (
        "| 40 KB, 2 producers | samples/s | 90 (80 to 100) | raw | 100 (100 to 100) | 0.9 (0.8 to 1) | ≥ 0.9, reached |"
        in text
    )
    assert "| 90 (80 to 100) | - | - | - | ≥ 95, not reached |" in text
    assert "Not measured: Reverb (40 KB, 2 producers): it is not installed." in text
    assert "Not measured: Penstock (solver): OpenFOAM is not installed." in text
    assert "at commit abc" in text


@given(st.text(), st.text(), st.text(), st.text())
def test_what_people_have_written_around_the_tables_stays(before: str, old: str, after: str, new: str) -> None:
    written = f"{before}{page.BEGIN}{old}{page.END}{after}"
    replaced = page.replaced(written, new)
    assert replaced == f"{before}{page.BEGIN}\n\n{new.strip()}\n\n{page.END}{after}"
    assert page.replaced(replaced, new) == replaced


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="markers"):
        page.replaced("# Performance\n", "tables")


def test_the_page_is_what_the_figures_make_of_it() -> None:
    found = json.loads(page.JSON.read_text()) if page.JSON.is_file() else None
    text = page.tables(found, page.picture().is_file())
    assert page.PAGE.read_text() == page.replaced(page.PAGE.read_text(), text), (
        "write it again with python benchmarks/performance --page"
    )


def test_a_process_that_ends_too_early_is_reported_with_its_last_line() -> None:
    with pytest.raises(Failed, match=r"ended with 3: no such thing"):  # noqa: SIM117
        with Talker(
            [sys.executable, "-c", "import sys; print('no such thing', file=sys.stderr); sys.exit(3)"]
        ) as talker:
            talker.hear(PATIENCE)


def test_a_process_that_says_what_is_missing_is_no_failure() -> None:
    program = "print('a banner'); print('{\"cannot\": \"no redis\"}')"
    with pytest.raises(CannotRun, match="no redis"), Talker([sys.executable, "-c", program]) as talker:
        talker.hear(PATIENCE)


def test_nothing_that_a_process_has_started_outlives_it() -> None:
    program = (
        "import json, subprocess\n"
        "child = subprocess.Popen(['sleep', '1000'])\n"
        "print(json.dumps({'child': child.pid}), flush=True)\n"
        "input()\n"
    )
    with Talker([sys.executable, "-c", program]) as talker:
        child = talker.hear(PATIENCE)["child"]
        os.kill(child, 0)
        talker.say()
    until = time.monotonic() + PATIENCE
    while alive(child):
        assert time.monotonic() < until
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_throughputs_come_from_windows_of_a_second_within_a_phase() -> None:
    lines = [
        {"time": float(second), "presentations": 100 * second if second < 10 else 1000 + 200 * (second - 10),
         "production_ended": int(second >= 10)}
        for second in range(20)
    ]  # fmt: skip
    arriving, after = windows(lines, ended=False), windows(lines, ended=True)
    assert arriving is not None
    assert after is not None
    assert set(arriving.rates) == {100.0}
    assert (after.mean, after.worst) == (200.0, 200.0)
    assert windows(lines[:3], ended=False) is None
    assert windows(lines[:3], ended=True) is None


def test_the_costs_of_the_buffer_become_rows() -> None:
    costs = {
        "draw and gather, capacity 1e3": [10.0, 20.0],
        "draw and gather, capacity 1e6": [11.0, 25.0],
        "draw": [1.0],
    }
    locks = {"stats(), lock held at most": [2.0], "stats(), whole": [9.0]}
    drawing, held = rows({"fifo": {"microseconds": costs}, "locks, 5,000,000 samples": locks})
    assert drawing.case == "a batch of 64 from 1,000,000 samples of 1 KB, fifo"
    assert drawing.ratios == {"from 1,000": [1.1, 1.25]}
    assert drawing.reaches("from 1,000") is True
    assert held.case == "stats(): lock held at most (5,000,000 samples)"
    assert held.reaches("") is True


def test_a_stack_belongs_to_the_part_of_its_innermost_file() -> None:
    receive = "Thread.run (threading.py:1);RouterLoop._receive_all (penstock_server/network/router.py:180);"
    shares = parts_of(
        [
            f"{receive}Ingest.handle (penstock_server/ingest/ingest.py:100) 1",
            f"{receive}WholeSteps._fill (penstock_server/ingest/steps.py:260);_wrapfunc (numpy/fromnumeric.py:54) 2",
            f"{receive}take (penstock_server/native/__init__.py:59) 3",
            f"{receive}Normaliser.merge (penstock_server/training/normalisation.py:122) 4",
            "Thread.run (threading.py:1);wait (threading.py:2) 100",
        ]
    )
    assert sum(shares.values()) == 1.0
    assert (shares[RECEIVE], shares[INGEST], shares[COPY], shares[MERGE]) == (0.1, 0.2, 0.3, 0.4)


def test_a_group_measured_anew_replaces_its_rows_and_has_a_stamp_of_its_own() -> None:
    row = some_row().as_json()
    other = {**row, "group": "ranks"}
    before = {"commit": "a", "command": "all", "rows": [row, other]}
    after = page.updated(before, {"commit": "b", "command": "one", "rows": [{**row, "case": "new"}]})
    assert [(r["group"], r["case"]) for r in after["rows"]] == [(row["group"], "new"), ("ranks", row["case"])]
    assert (after["commit"], after["anew"]) == ("a", {row["group"]: {"commit": "b", "command": "one"}})
