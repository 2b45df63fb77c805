"""What a case's controlDict says about its program, its beginning and its end."""

from __future__ import annotations

import contextlib
import math
import re
from dataclasses import dataclass
from pathlib import Path

from penstock_solvers.openfoam.dictionary import FoamDictionary
from penstock_solvers.openfoam.errors import CaseError
from penstock_solvers.openfoam.settings import CaseSettings
from penstock_solvers.openfoam.times import times
from penstock_solvers.openfoam.understand import understood

FUNCTION_OBJECT = "penstockStream"
_STREAMS = re.compile(rf'\btype\s+"?{FUNCTION_OBJECT}"?\s*;')
_AT_WRITE_TIMES = re.compile(r"\bexecuteControl\s+(writeTime|outputTime)\s*;")
_STARTS = ("startTime", "firstTime", "latestTime")
_STOPS = ("endTime", "writeNow", "noWriteNow", "nextWrite")


@dataclass(frozen=True)
class Control:
    """The settings that are read from a case's controlDict.

    Attributes:
        application: name of the solver program.
        start: name of the folder of the start time.
        streams: True if the case has a function object `penstockStream` of its own.
        start_from: startTime, firstTime or latestTime.
        writes: True if the end of the run, or the case's own penstockStream, depends on when fields are written.
    """

    application: str
    start: str
    streams: bool
    start_from: str = "startTime"
    writes: bool = False


def read_control(settings: CaseSettings) -> Control:
    """Read a template's controlDict.

    Args:
        settings: settings of the case.

    Returns:
        The settings that the controlDict contains.

    Raises:
        CaseError: the case, its controlDict or the folder of the start time does not exist, or nothing can be run from
            there.
    """
    case = settings.case
    if not case.is_dir():
        raise CaseError(f"[solver] case = '{case}' does not exist: expected the folder of an OpenFOAM template case")
    for folder in ("system", "constant"):
        if not (case / folder).is_dir():
            raise CaseError(f"[solver] case = '{case}' is not an OpenFOAM case: it has no folder {folder}/")
    dictionary = FoamDictionary(case / "system" / "controlDict", f"{case}/system/controlDict")
    application = settings.application or understood(case, dictionary, "application")
    if application is None:
        raise CaseError(
            f"{dictionary.name} names no application; add 'application icoFoam;' (or another solver) there, or set "
            "[solver] application"
        )
    start_from = _one_of(case, dictionary, "startFrom", _STARTS, "latestTime")
    stop_at = _one_of(case, dictionary, "stopAt", _STOPS, "endTime")
    start = start_folder(case, start_from, understood(case, dictionary, "startTime"))
    if stop_at == "endTime":
        _require_time_to_run(case, dictionary, start)
    text = "".join(_texts(dictionary, case))
    streams = _STREAMS.search(text) is not None
    return Control(
        application,
        start,
        streams,
        start_from,
        writes=stop_at != "endTime" or (streams and _AT_WRITE_TIMES.search(text) is not None),
    )


def adapts_time_step(case: Path) -> bool:
    """Whether the solver chooses the size of its time steps, so that equal steps have other times in other simulations.

    Args:
        case: the template case, which has a system/controlDict.

    Returns:
        True if the controlDict switches adjustTimeStep on.

    Raises:
        CaseError: the controlDict cannot be read.
    """
    dictionary = FoamDictionary(case / "system" / "controlDict", f"{case}/system/controlDict")
    return understood(case, dictionary, "adjustTimeStep") in ("yes", "on", "true", "y", "t")


def _one_of(case: Path, dictionary: FoamDictionary, key: str, allowed: tuple[str, ...], default: str) -> str:
    value = understood(case, dictionary, key) or default
    if value not in allowed:
        raise CaseError(f"{dictionary.name}: {key} = {value}: expected one of {', '.join(allowed)}")
    return value


def _require_time_to_run(case: Path, dictionary: FoamDictionary, start: str) -> None:
    end = understood(case, dictionary, "endTime")
    with contextlib.suppress(ValueError, TypeError):
        if float(end or "nan") <= float(start):
            raise CaseError(
                f"{dictionary.name}: endTime = {end} is not after the start at {start} (startFrom and startTime), so no "
                "time step would be made; raise endTime, or start from an earlier time"
            )


def _texts(dictionary: FoamDictionary, case: Path) -> list[str]:
    """The text of the function objects, with what they include."""
    text = re.sub(rb"//[^\n]*|/\*.*?\*/", b"", dictionary.bytes(), flags=re.S).decode("utf-8", "replace")
    included = re.findall(r'#\s*s?include(?:IfPresent)?\s*"([^"$]+)"', text)
    files = [case / "system" / name for name in included]
    return [text, *(file.read_text("utf-8", "replace") for file in files if file.is_file())]


def start_folder(case: Path, start_from: str, start_time: str | None) -> str:
    """Find the folder that a run starts from.

    Args:
        case: the case.
        start_from: startTime, firstTime or latestTime.
        start_time: the controlDict's startTime; None: 0.

    Returns:
        Name of the folder; "0" if the case has no folder of a time, but 0.orig.

    Raises:
        CaseError: there is no such folder, or the start time is not a number.
    """
    folders = times(case)
    if folders and start_from != "startTime":
        return folders[0] if start_from == "firstTime" else folders[-1]
    try:
        time = float(start_time if start_time is not None and start_from == "startTime" else 0)
    except ValueError:
        time = math.nan
    if not math.isfinite(time):
        raise CaseError(f"{case}/system/controlDict: startTime = {start_time} is not a number")
    for name in folders:
        if float(name) == time:
            return name
    if time == 0 and (case / "0.orig").is_dir():
        return "0"
    raise CaseError(
        f"[solver] case = '{case}' has no folder {time:g} with the initial fields, but its controlDict has "
        f"startTime = {time:g}; add the folder or change startTime"
    )
