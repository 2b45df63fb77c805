"""The time folders of a case, as PyFoam finds them."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

from penstock_solvers.openfoam.errors import CaseError

_TIME = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")  # name of a time folder


class PyFoamMissing(CaseError):
    """PyFoam is not installed."""


def is_time(name: str) -> bool:
    """Whether a folder's name is a time."""
    return _TIME.fullmatch(name) is not None


def times(case: Path) -> list[str]:
    """List the time folders of a case by their time.

    Args:
        case: the case.

    Returns:
        Names of the folders, the earliest first.

    Raises:
        PyFoamMissing: PyFoam is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escape sequences in PyFoam's own source
            from PyFoam.RunDictionary.SolutionDirectory import SolutionDirectory  # optional, and slow to import
    except ImportError as error:
        raise PyFoamMissing(
            f"the OpenFOAM adapter needs PyFoam ({error}); install it with: pip install 'penstock[openfoam]'"
        ) from error
    found = SolutionDirectory(str(case), archive=None, paraviewLink=False).getTimes()
    return sorted((name for name in found if is_time(name) and (case / name).is_dir()), key=float)
