"""Programs on several MPI ranks, for tests; and recordings of what they stream."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lacking import lacking
from live_server import LiveServer
from penstock_server.engines.record import RecordEngine
from penstock_server.recording import Recording, RecordingReader
from penstock_server.study import Study

ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_btl_vader_single_copy_mechanism": "none",  # where the kernel forbids it, Open MPI says so on each start
}


def require(*programs: str) -> None:
    """Skip where a program is missing, or fail where all of them must be there."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        lacking(f"{', '.join(missing)} not installed: `make system`")


def mpirun(ranks: int, *command: str | Path) -> list[str]:
    """The command on so many ranks, however few cores there are."""
    return ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", str(ranks), *map(str, command)]


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    return {**variables, **ENVIRONMENT}


@contextmanager
def recorder(
    directory: Path,
    fields: Mapping[str, Mapping[str, Any]],
    *,
    simulations: int = 1,
    retries: int = 0,
    time: str = "physical",
    parameters: Mapping[str, list[float]] | None = None,
) -> Iterator[LiveServer]:
    """As `live_server`, but what arrives is kept: `recorded` gives the time steps afterwards."""
    study = Study.model_validate(
        {
            "study": {"name": "recorded"},
            "parameters": parameters or {"a": [2.0, 3.0]},
            "solver": {"command": [sys.executable], "simulations": simulations, "retries": retries},
            "fields": fields,
            "samples": {"time": time},
            "server": {"heartbeat": 0.2, "server_timeout": 30.0, "client_timeout": 20},
        }
    )
    directory.mkdir(parents=True, exist_ok=True)
    engine = RecordEngine(study, directory, directory / "recording.h5")
    server = LiveServer(engine, engine.start(), directory)
    try:
        yield server
    finally:
        if not server.closed:
            engine.close()


def recorded(server: LiveServer, simulation: int) -> tuple[float, NDArray[np.float32], NDArray[np.float32]]:
    """Of a simulation whose study has ended: its parameter, times (steps,) and values (steps, width)."""
    recording = Recording.open(server.directory / "recording.h5")
    reader = RecordingReader(recording, recording.time)
    inputs, values = reader.read(simulation, 0, int(recording.steps[simulation]))
    reader.close()
    return float(recording.points[simulation, 0]), inputs[:, -1], values
