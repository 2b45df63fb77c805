"""Lines of events.jsonl that clients cause are bounded, in their number and in their length."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock_server.telemetry import EventLog, plain_text, read_lines
from penstock_server.telemetry.events import MAX_TEXT


def test_one_key_can_cause_so_many_bytes_of_one_kind_and_the_rest_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock_server.telemetry.events.BUDGET", 20_000)
    monkeypatch.setattr("penstock_server.telemetry.events.BUDGET_PER_SECOND", 0.0)
    events = EventLog(tmp_path / "events.jsonl")
    for number in range(1000):
        events.write_for("thief", "client", pid=number, host="x" * 100)
    events.write_for("local-0", "client", pid=1, host="node")
    events.write_for("thief", "failed", simulation=1)
    events.write("finished")
    lines = list(read_lines(tmp_path / "events.jsonl"))
    written = sum(line.get("worker") == "thief" and line["event"] == "client" for line in lines)
    assert (tmp_path / "events.jsonl").stat().st_size < 21_000
    assert [line["event"] for line in lines[written:]] == ["client", "failed", "finished"]
    assert events.warnings() == (
        f"events.jsonl: {1000 - written} lines of the event 'client' were left out, which the key 'thief' has caused",
    )


@pytest.mark.parametrize("character", ["x", "\u202e", "\U0001f600", '"', "\\"])
def test_a_text_is_cut_by_the_bytes_that_it_takes(tmp_path: Path, character: str) -> None:
    events = EventLog(tmp_path / "events.jsonl")
    events.write("failed", message=character * 10_000)
    (line,) = read_lines(tmp_path / "events.jsonl")
    written = len(json.dumps(line["message"])) - 2
    assert MAX_TEXT - 12 < written <= MAX_TEXT
    assert set(line["message"]) == {character}


def test_text_from_elsewhere_steers_no_terminal() -> None:
    assert plain_text("\x1b[2Jgone\x07\r\u202e\u2066\u200b\u2028") == "\ufffd[2Jgone" + "\ufffd" * 6
    assert plain_text("Zürich → ∞\n\t\U0001f600") == "Zürich → ∞\n\t\U0001f600"
    assert plain_text("a\nb", lines=False) == "a\ufffdb"
