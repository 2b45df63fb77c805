"""What a test needs and this machine does not have."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def lacking(what: str) -> NoReturn:
    """Skip the test; where all real components are required (PENSTOCK_REQUIRE_ALL), fail it.

    what: what is not there, and how to install it.
    """
    if os.environ.get("PENSTOCK_REQUIRE_ALL"):
        pytest.fail(what)
    pytest.skip(what)
