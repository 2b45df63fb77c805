"""What must hold of every study, whatever has been done to it."""

from __future__ import annotations

from typing import Any

from world import World


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


def ended(study: World, *, failed: int = 0) -> dict[str, Any]:
    """Wait for the study's end; its report, with what is wrong with it."""
    code = study.wait()
    report = study.report()
    wrong = faults_of(report, failed=failed)
    if code != 0:
        wrong.append(f"exit code {code}: {study.said()[-300:]}")
    return {"report": report, "wrong": wrong}


def failed_saying(study: World, *words: str) -> list[str]:
    """Wait for a study that must fail by itself; what is wrong with its end, a line each.

    Args:
        study: that has failed, or is about to.
        words: that its output and report.json must have.
    """
    code, said = study.wait(), study.said()
    wrong = [] if code == 1 else [f"exit code {code}, expected 1: {said[-300:]}"]
    report = study.report()
    if report["status"] != "failed":
        wrong.append(f"status {report['status']!r}, expected 'failed'")
    wrong += [
        f"{word!r} is not in {where}"
        for word in words
        for where, text in (("what penstock said", said), ("the report's message", report["message"]))
        if word not in text
    ]
    if "Traceback" in said:
        wrong.append("penstock has printed a traceback")
    return wrong
