"""report.json: the machine-readable outcome of a study, written at its end and on every stop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from penstock_client.atomic_file import write_atomic
from penstock_client.errors import PenstockError
from penstock_server.engines.guards import study_warnings
from penstock_server.engines.outages import Outage
from penstock_server.engines.results import StudyResults
from penstock_server.study import Study
from penstock_server.telemetry import strict_json


class ReportError(PenstockError):
    """report.json could not be written."""


def build_report(
    study: Study,
    results: StudyResults,
    *,
    status: str,
    message: str,
    wall_seconds: float,
    incarnations: int,
    outages: Sequence[Outage] = (),
) -> dict[str, Any]:
    """Put the report together.

    Args:
        study: the study.
        results: what coordinator and trainer ranks say at the end.
        status: "finished", "stopped" or "failed".
        message: the reason.
        wall_seconds: seconds since the engine's start.
        incarnations: number of servers that the study has had.
        outages: times without training after a crash.
    """
    ranks, coordinator = results.ranks, results.coordinator
    buffers = [r.buffer for r in ranks if r.buffer is not None]
    first = ranks[0]
    validation = first.validation
    refused = sum((Counter(r.refused) for r in ranks), Counter(coordinator.refused))
    received = sum(b.received for b in buffers)
    times_seen = sum((Counter(b.times_seen) for b in buffers), Counter[int]())
    return {
        "study": study.study.name,
        "status": status,
        "message": message,
        "seed": study.study.seed,
        "engine": study.study.engine if study.training.source is None else "offline",
        "wall_seconds": round(wall_seconds, 3),
        "incarnations": incarnations,
        "simulations": {k: v for k, v in asdict(coordinator.simulations).items() if k != "running"},
        "warnings": list(
            dict.fromkeys(
                [*study_warnings(study, results), *coordinator.warnings, *(w for r in ranks for w in r.warnings)]
            )
        ),
        "failures": {str(i): text for i, text in sorted(coordinator.failures.items())},
        "samples": {
            "expected": coordinator.expected,
            "received": sum(r.received for r in ranks),
            "unique": results.unique,
            "duplicates_dropped": sum(r.duplicates for r in ranks),
            # What a stopping study turns away is neither lost nor wrong.
            "rejected": refused.total() - refused["study_over"],
            "rejected_by_reason": dict(refused),
            "incomplete_dropped": sum(r.incomplete for r in ranks),
            "trained_unique": sum(b.trained_unique for b in buffers),
            "presentations": sum(b.presentations for b in buffers),
        },
        "training": {
            "ranks": len(ranks),
            "device": first.device,
            "batches": first.batches,
            "samples_per_second": round(sum(r.mean_samples_per_second for r in ranks), 3),
            "stall_fraction": round(sum(r.stall_fraction for r in ranks) / len(ranks), 4),
            "loss": first.loss,
        },
        "checkpoint": {
            "count": sum(r.checkpoints.count for r in ranks),
            "seconds": round(sum(r.checkpoints.seconds for r in ranks), 3),
            "ingest_blocked_seconds": round(sum(r.checkpoints.ingest_blocked_seconds for r in ranks), 3),
            "failed": sum(r.checkpoints.failed for r in ranks),
        },
        "outages": [asdict(outage) for outage in outages],
        "clients": {
            "bytes_received": sum(r.bytes_received for r in ranks),
            "blocked_seconds": round(coordinator.blocked_seconds, 3),
        },
        "buffer": {
            "policy": study.buffer.policy if study.training.source is None else "offline",
            "capacity": sum(b.capacity for b in buffers),
            "mean_population": round(sum(b.mean_population for b in buffers), 1),
            "mean_times_seen": round(sum(b.presentations for b in buffers) / received, 3) if received else 0.0,
            "times_seen": {str(times): number for times, number in sorted(times_seen.items())},
        },
        "references": {name: field.reference for name, field in study.fields.items() if field.reference},
        "validation": None if validation is None else {**validation.figures(), "history": "metrics.jsonl"},
    }


def write_report(directory: Path, report: dict[str, Any]) -> Path:
    """Write report.json atomically.

    Args:
        directory: the run directory.
        report: its content.

    Returns:
        Path of the file.

    Raises:
        ReportError: the disk does not take it.
    """
    path = directory / "report.json"
    try:
        write_atomic(path, strict_json(report, indent=2) + "\n")
    except OSError as error:
        outcome = f"{report['status']} ({report['message']})"
        raise ReportError(
            f"{path} cannot be written ({error.strerror}); the study: {outcome}; make room, then `penstock resume {directory}` "
            "writes it again from the last checkpoint"
        ) from error
    return path
