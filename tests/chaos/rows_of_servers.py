"""Rows of the table in which the server loses a part, but no process of it; rows.py has the table."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accounting import ended, failed_saying
from dying_thread import REASON
from world import PENSTOCK, World, world

HERE = Path(__file__).parent


def socket_thread_died(folder: Path, rng: random.Random) -> dict[str, Any]:
    """The thread of the coordinator's socket dies, and the study is resumed; then the thread of a trainer rank's socket dies."""
    wrong = []
    with world(folder, command=_dying("coordinator", folder)) as study:
        for part, which in enumerate(("coordinator", "rank"), start=1):
            study.until(lambda part=part: study.finished() >= 20 * part)
            (folder / which).touch()
            wrong += failed_saying(study, REASON)
            study.command = _dying("rank", folder) if which == "coordinator" else list(PENSTOCK)
            study.resume()
        end = ended(study)
    end["wrong"] += wrong
    return end


def _dying(which: str, folder: Path) -> list[str]:
    return [sys.executable, str(HERE / "dying_thread.py"), which, str(folder / which)]


def old_checkpoints_stay(folder: Path, rng: random.Random) -> dict[str, Any]:
    """An old checkpoint is on a file system that has become read-only, and cannot be removed."""
    checkpoints = folder / "run" / "checkpoints"
    with world(folder) as study:
        study.until(lambda: list(checkpoints.glob("0*")))
        old = min(checkpoints.glob("0*"))
        with read_only(old):
            end = ended(study)
            kept = old.is_dir()
    if not kept:
        end["wrong"].append(f"{old.name} was removed all the same")
    if not any("old checkpoints could not be removed" in warning for warning in end["report"]["warnings"]):
        end["wrong"].append("the report has no warning of the checkpoint that could not be removed")
    return end


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Make a folder a file system of its own that cannot be written."""
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def ranks_disconnected(folder: Path, rng: random.Random) -> dict[str, Any]:
    """The connections between two trainer ranks are closed by the kernel; no restart is allowed. The study is resumed."""
    with world(folder, ranks=2, max_restarts=0) as study:
        study.until(lambda: study.finished() >= 20 and study.events("checkpoint"))
        for here, there in _between_ranks(study):
            _in_network_of(study, "ss", "--kill", "--tcp", "src", here, "dst", there)
        wrong = failed_saying(study, "the trainer ranks have lost the connection between them", "penstock resume")
        study.resume()
        end = ended(study)
    end["wrong"] += wrong
    return end


def ranks_network_cut(folder: Path, rng: random.Random) -> dict[str, Any]:
    """Nothing gets through between two trainer ranks any more, and no connection is closed."""
    with world(folder, ranks=2, server_timeout=15.0, command=[*NETWORK_OF_ITS_OWN, *PENSTOCK]) as study:
        study.until(lambda: study.finished() >= 20 and study.events("checkpoint"))
        for here, there in _between_ranks(study):
            ports = ("sport", here.rpartition(":")[2], "dport", there.rpartition(":")[2])
            _in_network_of(study, *("ip", "rule", "add", "pref", "5", "ipproto", "tcp"), *ports, "blackhole")
        end = ended(study)
        said = study.said()
    if "the trainer ranks have lost the connection between them" not in said:
        end["wrong"].append(f"penstock has not said that the ranks lost each other: {said[-300:]}")
    return end


# A network namespace with an address for Ray. Its rules are read before the rule for the machine's own addresses.
NETWORK_OF_ITS_OWN = [
    *("unshare", "--net", "sh", "-c"),
    "ip link set lo up; ip address add 10.214.0.1/32 dev lo; ip route add default dev lo; "
    'ip rule add pref 10 lookup local; ip rule del pref 0; exec "$@"',
    "sh",
]


def _in_network_of(study: World, *command: str) -> str:
    """Run a command where the study's processes have their network; returns what it printed."""
    assert study.process is not None
    inside = ["nsenter", f"--target={study.process.pid}", "--net"]
    return subprocess.run([*inside, *command], check=True, capture_output=True, text=True).stdout


def _between_ranks(study: World) -> list[tuple[str, str]]:
    """Both ends of the connections between the ranks' processes, each way: HOST:PORT of either."""
    of_rank: list[set[tuple[str, str]]] = []
    lines = _in_network_of(study, "ss", "-HtnpO", "state", "established").splitlines()
    for pid in study.pids("rank"):
        words = [line.split() for line in lines if f"pid={pid}," in line]
        of_rank.append({(here, there) for _, _, here, there, *_ in words})
    first, second = of_rank
    found = [pair for here, there in first if (there, here) in second for pair in ((here, there), (there, here))]
    assert found, "the trainer ranks have no connection"
    return found
