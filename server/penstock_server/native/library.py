"""Finds the library that the installation has made of kernel.c; without it, numpy does the same more slowly."""

from __future__ import annotations

import hashlib
from pathlib import Path

from penstock_server.native.compiled import Kernel

LIBRARY = "libpenstock_kernel.so"
FOLDER = Path(__file__).parent


def source_checksum(source: Path) -> str:
    """Return what a library made from this source says of itself; hatch_build.py computes the same."""
    return hashlib.sha256(source.read_bytes()).hexdigest()[:16]


def load(folder: Path = FOLDER) -> tuple[Kernel | None, str]:
    """Load the library.

    Args:
        folder: where kernel.c and the library are.

    Returns:
        The library's functions, or None where there is no library of this version; and which of them it is, in words
        for the log.
    """
    library = folder / LIBRARY
    if not library.exists():
        return None, "numpy takes in what arrives: no C compiler was found when penstock was installed"
    try:
        kernel = Kernel(library)
        made_from = kernel.source
    except (OSError, AttributeError) as error:
        return None, f"numpy takes in what arrives: {error}; install penstock again"
    if made_from != source_checksum(folder / "kernel.c"):
        return None, f"numpy takes in what arrives: {library} is of another version; install penstock again"
    return kernel, f"{library} takes in what arrives"
