"""What must hold of every study, whatever has been done to it; and what it may have left behind."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import psutil


def faults_of(report: dict[str, Any], *, failed: int = 0) -> list[str]:
    """What is wrong with a study's report.json, a line each; failed: simulations that could not finish, by intention."""
    samples, simulations = report["samples"], report["simulations"]
    wrong = []
    if report["status"] != "finished":
        wrong.append(f"status {report['status']!r} ({report['message']}), expected 'finished'")
    for name in ("unique", "trained_unique"):
        if samples[name] != samples["expected"]:
            wrong.append(f"{name} = {samples[name]}, expected {samples['expected']}")
    if samples["received"] - samples["duplicates_dropped"] != samples["unique"]:
        wrong.append(
            f"received {samples['received']} less {samples['duplicates_dropped']} duplicates is not unique {samples['unique']}"
        )
    if simulations["failed"] != failed or simulations["finished"] != simulations["requested"] - failed:
        wrong.append(f"simulations {simulations}, expected {failed} failed and all others finished")
    return wrong


def left_over(before: set[str]) -> list[str]:
    """Processes, temporary folders and shared memory of studies that are there now and were not `before`."""
    return sorted(traces() - before)


def traces() -> set[str]:
    """Whatever on this machine looks like a study's: processes, and entries of /tmp and /dev/shm."""
    found = set()
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or [])
        if any(mark in words for mark in ("penstock_solvers.worker", "penstock.main run", "penstock-ray-", "ray::")):
            # Without folders: what is left over may be published.
            found.add(f"process {process.pid}: {' '.join(Path(word).name for word in words.split()[:4])}")
    for folder in (Path(tempfile.gettempdir()), Path("/dev/shm")):
        found |= {str(path) for path in folder.iterdir() if path.name.startswith(("penstock", "ray", "plasma"))}
    return found
