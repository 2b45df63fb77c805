"""The signals that end a study, and those that do not."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from penstock.run.signals import Signals


@pytest.fixture(autouse=True)
def hangup_as_before() -> Iterator[None]:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    yield
    signal.signal(signal.SIGHUP, before)


def test_a_closed_terminal_asks_the_study_to_stop_once() -> None:
    signals = Signals()
    with signals.caught():
        os.kill(os.getpid(), signal.SIGHUP)
        assert signals.received == "SIGHUP"
        os.kill(os.getpid(), signal.SIGHUP)
        assert signals.received == "SIGHUP"
        with pytest.raises(SystemExit):
            os.kill(os.getpid(), signal.SIGTERM)


def test_under_nohup_a_closed_terminal_ends_nothing() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signals = Signals()
    with signals.caught():
        os.kill(os.getpid(), signal.SIGHUP)
    assert signals.received == ""
