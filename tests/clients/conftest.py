"""Fixtures for the tests of libpenstock."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from c_vectors import vectors_header
from native import ROOT


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with libpenstock and its test programs, built with the undefined-behaviour and address sanitizers."""
    build = tmp_path_factory.mktemp("libpenstock")
    (build / "vectors.h").write_text(vectors_header())
    flags = "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all"
    subprocess.run(
        [
            "make",
            "-s",
            "-C",
            ROOT / "clients" / "c",
            f"BUILD={build}",
            f"VECTORS={build}",
            f"CFLAGS={flags}",
            "WERROR=-Werror",
            "tests",
        ],
        check=True,
    )
    return build
