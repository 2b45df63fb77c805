"""Fixtures for the tests of the server's kernel."""

from __future__ import annotations

import pytest
from kernel_library import compiled

from penstock_server.native.compiled import Kernel


@pytest.fixture(scope="session")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Kernel:
    """The functions of a freshly compiled kernel.c."""
    return Kernel(compiled(tmp_path_factory.mktemp("kernel"), "-O3"))
