"""Tutorials of OpenFOAM as studies from the command line: `make tutorials` prints their table."""

from __future__ import annotations

import pytest
from tutorials import TABLE, Tutorial, run

pytestmark = [pytest.mark.slow, pytest.mark.openfoam]


@pytest.mark.parametrize(("name", "tutorial"), TABLE.items(), ids=TABLE)
def test_a_tutorial_runs_as_a_study(name: str, tutorial: Tutorial) -> None:
    assert run(name, tutorial)
