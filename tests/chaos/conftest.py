"""What chaos needs of the machine."""

from __future__ import annotations

import os
import shutil

import pytest


@pytest.fixture
def root_and_iproute2() -> None:
    """Root and iproute2, for network namespaces and small file systems; where everything is required, their lack is a failure."""
    if os.geteuid() == 0 and shutil.which("ip"):
        return
    lack = "needs root and iproute2 (apt-get install iproute2), for network namespaces and small file systems"
    if os.environ.get("PENSTOCK_REQUIRE_ALL"):
        pytest.fail(lack)
    pytest.skip(lack)
