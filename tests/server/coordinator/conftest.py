"""Fixtures for the tests of the coordinator."""

from __future__ import annotations

from pathlib import Path

import pytest
from talk import Talk

from penstock_server.telemetry import EventLog


@pytest.fixture
def events(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "events.jsonl")


@pytest.fixture
def make_study(heat_study):
    """A study of few retries and short time-outs; keyword arguments are tables laid over it."""

    def make(**changes):
        base = {"solver": {"retries": 1, "wall_time": 100.0}, "server": {"client_timeout": 10.0}}
        return heat_study(**{name: {**base.get(name, {}), **changes.get(name, {})} for name in base | changes})

    return make


@pytest.fixture
def talk(events: EventLog, make_study) -> Talk:
    return Talk(events, make_study())
