"""The real server on real sockets, for tests of clients that are processes of their own (C, OpenFOAM)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from penstock_client import Client, read_connect_file
from penstock_client.simulation import Simulation
from penstock_server.engines.inline import InlineEngine
from penstock_server.engines.record import RecordEngine
from penstock_server.study import Study
from penstock_solvers.openfoam.environment import OpenFOAMMissing, openfoam_environment
from waiting import PATIENCE


@dataclass
class LiveServer:
    """A running study without workers of its own: tests start the solvers, as a worker would."""

    engine: InlineEngine | RecordEngine
    connect: Path
    directory: Path
    closed: bool = False

    def environment(self, simulation: Simulation | None = None) -> dict[str, str]:
        """What a worker sets for a solver that it starts for this simulation; OpenFOAM's own, where it is installed."""
        variables = {"PENSTOCK_CONNECT": str(self.connect), "PENSTOCK_CONNECT_TIMEOUT": "10"}
        if simulation is not None:
            variables |= {"PENSTOCK_SIMULATION": str(simulation.id), "PENSTOCK_ATTEMPT": str(simulation.attempt)}
        try:
            return openfoam_environment() | variables
        except OpenFOAMMissing:
            return os.environ | variables

    def start(self, command: Sequence[str | Path], simulation: Simulation, **options: Any) -> subprocess.Popen[str]:
        """Start a solver for a simulation; its output is piped."""
        return subprocess.Popen(
            [str(part) for part in command],
            env=self.environment(simulation),
            stderr=subprocess.STDOUT,
            text=True,
            **({"stdout": subprocess.PIPE} | options),
        )

    def behind(self, control: str, data: str) -> Path:
        """A connect.json by which clients reach this server at other addresses, those of proxies."""
        requests = self.engine._coordinator._requests
        requests.welcome = replace(requests.welcome, rank_endpoints=(data,))
        path = self.directory / "behind.json"
        replace(read_connect_file(self.connect), control=control).write(path)
        return path

    def vanish(self) -> None:
        """Be gone without a word to anybody, as a server that was killed."""
        assert self.engine._sockets is not None
        self.engine._sockets.close()
        self.engine._rank.stop("vanished")
        self.engine._rank.conclude()
        self.closed = True

    def report(self) -> dict[str, Any]:
        """Wait for the end of the study and return its report."""
        assert self.engine.wait(PATIENCE), self.engine.status()
        self.closed = True
        return self.engine.close()


@contextmanager
def live_server(
    directory: Path,
    fields: Mapping[str, Mapping[str, Any]],
    *,
    simulations: int = 1,
    validation_simulations: int = 0,
    retries: int = 0,
    credit: int | str = "8 MiB",
    heartbeat: float = 0.2,
    server_timeout: float = 30.0,
    client_timeout: float = 20.0,
    solver: Mapping[str, Any] | None = None,
    files: Path = Path(),
    max_message: int | str = "16 MiB",
    shared_memory: bool = True,
) -> Iterator[LiveServer]:
    """Run a study with these fields and one parameter `a` in [2, 3]; its run directory is `directory`.

    solver: laid over [solver], where workers are to run one. files: the folder of the study file.
    """
    study = Study.model_validate(
        {
            "study": {"name": "live", "engine": "inline"},
            "parameters": {"a": [2.0, 3.0]},
            "solver": {
                **(solver or {"command": [sys.executable]}),
                "simulations": simulations,
                "validation_simulations": validation_simulations,
                "retries": retries,
            },
            "fields": fields,
            "buffer": {"capacity": 500, "credit": credit},
            "model": {"name": "mlp", "hidden": [8]},
            "training": {"batch_size": 4, "device": "cpu", "threads": 1},
            "server": {
                "heartbeat": heartbeat,
                "server_timeout": server_timeout,
                "client_timeout": client_timeout,
                "max_message": max_message,
                "shared_memory": shared_memory,
            },
            "directory": str(files),
        }
    )
    directory.mkdir(parents=True, exist_ok=True)
    engine = InlineEngine(study, directory, threads=1)
    server = LiveServer(engine, engine.start(), directory)
    try:
        yield server
    finally:
        if not server.closed:
            engine.close()


@contextmanager
def worker(server: LiveServer) -> Iterator[Client]:
    """A client that asks for simulations, as a Penstock worker does."""
    with Client(server.connect) as client:
        yield client
