"""What must hold of every study, whatever has been done to it."""

from __future__ import annotations

from typing import Any


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
