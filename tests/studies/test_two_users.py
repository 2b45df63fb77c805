"""A whole study on Ray beside another user of the machine, who may list processes and write to /tmp and /dev/shm."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import tomli_w
from command import end_what_was_started, events, report

from other_user import STRANGER, VICTIM, as_user, command_as, needs_root, with_readable_python
from penstock_server.engines.ray.leftovers import RECORD_FILE
from waiting import PATIENCE, commands, wait_for

HERE = Path(__file__).parent
SHARED_MEMORY = Path("/dev/shm")
SIMULATIONS, STEPS = 4, 5
SOLVER = f"""
import sys, time
from pathlib import Path
import numpy as np
from penstock_client import Client

with Client() as client:
    simulation = client.simulation()
    for step in range({STEPS}):
        simulation.send(step, u=float(sys.argv[1]) * np.cos(np.arange(8.0) * step))
        while not Path(__file__).with_name("over").exists():
            time.sleep(0.1)
    simulation.finish()
"""
STUDY = {
    "study": {"name": "private"},
    "parameters": {"a": [1.0, 2.0]},
    "solver": {
        "command": [sys.executable, "solver.py", "{a}"],
        "simulations": SIMULATIONS,
        "validation_simulations": 1,
        "concurrency": 1,
        "retries": 0,
    },
    "fields": {"u": {}},
    "buffer": {"capacity": 50, "watermark": 2},
    "model": {"name": "mlp", "hidden": [8]},
    "training": {"batch_size": 4, "device": "cpu", "threads": 1, "checkpoint_every": "1 s"},
}


@pytest.fixture
def home() -> Iterator[Path]:
    """The first user's folder, which others may look into; the second has taken the usual name of the scratch folder."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-two-users-", dir="/tmp"))
    for name, text in (("study.toml", tomli_w.dumps(STUDY)), ("solver.py", SOLVER)):
        (folder / name).write_text(text)
    for path in (folder, *folder.iterdir()):
        os.chown(path, VICTIM, VICTIM)
    folder.chmod(0o755)
    taken = SHARED_MEMORY / f"penstock-{VICTIM}"
    assert as_user(STRANGER, taken.mkdir) == "None"
    assert as_user(STRANGER, lambda: taken.chmod(0o777)) == "None"
    yield folder
    end_what_was_started()
    wait_for(lambda: not processes_of(VICTIM))
    for path in (folder, *SHARED_MEMORY.glob(f"penstock-{VICTIM}*")):
        shutil.rmtree(path)


def environment(home: Path) -> dict[str, str]:
    """Of a user who has logged in."""
    own = {"HOME": str(home), "USER": home.name, "LOGNAME": home.name, "PYTHONUNBUFFERED": "1"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "RAY_", "TMP"))}
    return kept | own | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_NUM_REDIS_GET_RETRIES": "1"}


def processes_of(user: int) -> list[psutil.Process]:
    return [process for process in psutil.process_iter(["uids"]) if process.info["uids"].real == user]


@needs_root
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_another_user_learns_and_stops_nothing_of_a_study(home: Path) -> None:
    out = home / "run"
    python = [sys.executable, "-m", "penstock.main", "run", "study.toml", "--out", str(out)]
    study = subprocess.Popen(
        with_readable_python(*command_as(VICTIM, *python)),
        cwd=home,
        env=environment(home),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,
    )
    commands.append(study)
    wait_for(lambda: events(out, "assigned"))
    scratch = wait_for(lambda: next(SHARED_MEMORY.glob(f"penstock-{VICTIM}-*/*/simulation-*"), None))
    ray = Path((out / RECORD_FILE).read_text())
    running = {process.pid for process in processes_of(VICTIM)}
    (gcs,) = (process for process in processes_of(VICTIM) if process.name() == "gcs_server")
    secrets = [gcs.environ()["RAY_AUTH_TOKEN"]]
    secrets += [text for text in strings(json.loads((out / "keys.json").read_text())) if len(text) == 40]
    assert len(secrets) > 2
    session = next((ray / "r").glob("session_2*"))
    private = [out, out / "logs", ray, ray / "r", session, scratch, scratch.parent, scratch.parents[1]]
    assert all(folder.is_dir() for folder in private)

    own_folder = home.with_name(f"{home.name}-stranger")
    inside = ["nsenter", f"--target={study.pid}", "--mount"]
    tried = subprocess.run(
        [*inside, *command_as(STRANGER, sys.executable, str(HERE / "stranger.py"), str(VICTIM), *map(str, private))],
        cwd="/tmp",
        env=environment(own_folder),
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    got = json.loads(tried.stdout)
    assert running <= {int(pid) for pid in got["commands"]}  # it sees the processes
    read = {path: base64.b64decode(text) for path, text in got["secrets"].items()}
    assert read[str(home / "study.toml")]  # and what is left open to it
    assert not [path for path in read if path.startswith(("/proc", *map(str, private)))]
    for where, text in [*read.items(), *((pid, line.encode()) for pid, line in got["commands"].items())]:
        assert not any(secret.encode() in text for secret in secrets), where
    refused = {str(folder): "PermissionError" for folder in private}
    assert (got["listed"], got["written"]) == (refused, refused)
    (said,) = got["ray"].values()
    assert said.startswith("refused")
    assert "token" in tried.stderr.lower(), said + tried.stderr
    assert set(got["killed"].values()) <= {"PermissionError", "ProcessLookupError"}
    assert {process.pid for process in processes_of(VICTIM)} >= {*map(int, gone_without(got["killed"]))}, got[
        "ray_stop"
    ]

    (home / "over").touch()
    printed, _ = study.communicate(timeout=PATIENCE)
    assert study.returncode == 0, printed
    done = report(out)
    assert (done["status"], done["incarnations"]) == ("finished", 1)
    assert done["simulations"]["restarted"] == done["simulations"]["failed"] == 0
    assert done["samples"]["trained_unique"] == done["samples"]["expected"] == SIMULATIONS * STEPS


def gone_without(killed: dict[str, str]) -> list[str]:
    """The processes that were there when they were to be killed."""
    return [pid for pid, came in killed.items() if came != "ProcessLookupError"]


def strings(value: object) -> Iterator[str]:
    """All texts in a structure of JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)
