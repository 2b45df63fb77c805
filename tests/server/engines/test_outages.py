"""Time without training, from what ranks say of themselves and from what a killed server has left."""

import os
import time
from pathlib import Path

from penstock_server.engines.outages import Outage, Outages
from penstock_server.telemetry import EventLog, read_lines
from penstock_server.trainer_rank import RankStatus


def status(first: float | None, last: float | None = None) -> list[RankStatus]:
    return [RankStatus(first_step=first, last_step=last)]


def test_from_the_last_step_before_to_the_first_after(tmp_path: Path) -> None:
    outages = Outages(tmp_path)
    outages.note(status(10.0, 50.0))
    outages.begin("rank", status(10.0, 50.0))
    outages.begin("ray", status(None))  # it died again before it could train
    outages.note(status(None))
    assert outages.ended == []
    outages.note(status(62.5, 63.0))
    outages.note(status(62.5, 80.0))
    assert outages.ended == [Outage("rank", 12.5, ("rank", "ray"))]
    assert Outages(tmp_path).ended == [Outage("rank", 12.5, ("rank", "ray"))]  # a later life knows


def test_nothing_is_lost_where_nothing_had_been_trained(tmp_path: Path) -> None:
    outages = Outages(tmp_path)
    outages.begin("coordinator", status(None))
    outages.note(status(99.0))
    assert outages.ended == []


def test_a_killed_server_is_told_from_one_that_stopped(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.write("started", incarnation=1)
    log.write("finished", simulation=3)
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("{}\n")
    os.utime(metrics, (time.time() - 30, time.time() - 30))
    killed = Outages(tmp_path)
    killed.note(status(time.monotonic() + 10))
    (outage,) = killed.ended
    assert outage.kind == "server"
    assert 39 < outage.seconds < 42
    log.write("stopped", message="interrupted")
    stopped = Outages(tmp_path)
    stopped.note(status(time.monotonic() + 10))
    assert stopped.ended == killed.ended  # that of before
    assert [line["event"] for line in read_lines(tmp_path / "events.jsonl")][-2:] == ["outage", "stopped"]


def test_a_rank_that_died_before_anybody_asked_it_is_known_by_its_log(tmp_path: Path) -> None:
    outages = Outages(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    outages.begin("rank", status(None))
    outages.note(status(time.monotonic() + 5))
    (outage,) = outages.ended
    assert outage.kind == "rank"
    assert 4 < outage.seconds < 7
