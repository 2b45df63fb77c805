"""Skip or fail a test when this machine lacks a program or package that the test needs."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def lacking(what: str) -> NoReturn:
    """Skip the test. If PENSTOCK_REQUIRE_ALL is set, as in continuous integration, fail it instead.

    Args:
        what: the missing component, and how to install it.
    """
    if os.environ.get("PENSTOCK_REQUIRE_ALL"):
        pytest.fail(what)
    pytest.skip(what)
