"""Waiting in tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import running

from waiting import wait_for


def test_waiting_ends_when_a_command_has_failed(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match=r"ended with code 2: (.|\n)*nowhere\.toml"),
        running("run", tmp_path / "nowhere.toml"),
    ):
        wait_for(lambda: False)
