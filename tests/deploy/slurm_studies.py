"""Studies for a real Slurm, and how they must end: finished, accounted for, without a job left."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import tomli_w
from command import events, report
from slurm_cluster import queue

from waiting import PATIENCE, wait_for

HERE = Path(__file__).parent
QUICK_SIMULATIONS = 12  # of the one without Ray
STEPS, PAUSE, SIMULATIONS = 10, 0.05, 20
CLOSED = "closed"  # a file in the study's folder: while it is there no simulation goes on, so that a test has time
PROFILE: dict[str, Any] = {
    "slurm": {"poll": "1 s"},
    "server": {"time": "30 min", "signal": "2 min", "memory": "1 GiB", "sbatch": ["--nodelist=n1"]},
    "workers": {"count": 2, "time": "20 min", "memory": "200 MiB", "sbatch": ["--nodelist=n2"]},
}
PROGRAM = f"""
import sys
import time
from pathlib import Path
import numpy
from penstock_client import Client, Field

with Client() as client:
    simulation = client.simulation()
    simulation.announce(u=Field(shape=(4,), dtype="float32"))
    for step in range({STEPS}):
        time.sleep({PAUSE})
        while Path(sys.argv[1]).exists():
            time.sleep(0.02)
        simulation.send(step, u=numpy.full(4, simulation.parameters["a"] * step, "float32"))
    simulation.finish()
"""


def write_profile(folder: Path, **changes: dict[str, Any]) -> Path:
    profile = folder / "cluster.toml"
    profile.write_text(tomli_w.dumps({name: {**table, **changes.get(name, {})} for name, table in PROFILE.items()}))
    return profile


def write_study(folder: Path) -> Path:
    study = folder / "study.toml"
    tables = {
        "study": {"name": "slow", "seed": 1},
        "parameters": {"a": [1.0, 2.0]},
        "solver": {
            "adapter": "slow_solver:Slow",
            "options": {"steps": STEPS, "pause": PAUSE, "closed": str(folder / CLOSED)},
            "simulations": SIMULATIONS,
            "validation_simulations": 1,
        },
        "fields": {"u": {}},
        "buffer": {"capacity": 50},
        "model": {"hidden": [4]},
        "training": {"batch_size": 2, "loss": "paced_training:paced_mse", "device": "cpu", "checkpoint_every": "1 s"},
        "server": {"client_timeout": "10 s", "server_timeout": "10 s"},
    }
    study.write_text(tomli_w.dumps(tables))
    for module in (HERE / "slow_solver.py", HERE.parent / "paced_training.py"):
        (folder / module.name).write_text(module.read_text())
    return study


def write_quick_study(folder: Path) -> Path:
    """One that starts within seconds: trained in one process, without Ray; its solver is the program beside it."""
    study = write_study(folder)
    tables = tomllib.loads(study.read_text())
    tables["study"]["engine"] = "inline"
    tables["solver"] = {
        "command": [sys.executable, "program.py", str(folder / CLOSED)],
        "case": ".",
        "simulations": QUICK_SIMULATIONS,
    }
    tables["fields"] = {"u": {"shape": [4]}}
    study.write_text(tomli_w.dumps(tables))
    (folder / "program.py").write_text(PROGRAM)
    return study


def in_mid_study(out: Path, finished: int = 3, incarnation: int = 1) -> None:
    """Wait until simulations have finished, in the server's present life, and some are being run; these wait from then on."""

    def there() -> bool:
        connect = out / "connect.json"
        if not connect.is_file() or json.loads(connect.read_text())["incarnation"] < incarnation:
            return False
        return len(events(out, "finished")) >= finished and "RUNNING" in queue("-workers").values()

    go_on(out)
    wait_for(there)
    (out.parent / CLOSED).touch()


def go_on(out: Path) -> None:
    """Let simulations go on that wait since `in_mid_study`."""
    (out.parent / CLOSED).unlink(missing_ok=True)


def ends_well(
    following: subprocess.Popen[str], out: Path, incarnations: int = 1, simulations: int = SIMULATIONS
) -> str:
    """The submitting command ends, with everything accounted for and the queue empty; returns what it printed."""
    go_on(out)
    said, _ = following.communicate(timeout=PATIENCE)
    servers = "\n".join(path.read_text() for path in sorted((out / "slurm").glob("server-*.log")))
    assert following.returncode == 0, said + servers
    assert queue() == {}
    accounted_for(out, incarnations, simulations)
    return said + servers


def accounted_for(out: Path, incarnations: int, simulations: int) -> None:
    found = report(out)
    assert (found["status"], found["incarnations"]) == ("finished", incarnations)
    counts, samples = found["simulations"], found["samples"]
    assert (counts["finished"], counts["failed"]) == (counts["requested"], 0)
    assert samples["expected"] == samples["unique"] == samples["trained_unique"] == simulations * STEPS
