"""What the parts of one process of the server share while they serve one run."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_server.telemetry.events import EventLog
from penstock_server.telemetry.metrics import Metrics


@dataclass(frozen=True)
class ServerRun:
    """One run of the server, and where this process of it writes what happens.

    Attributes:
        incarnation: number of the run in this run directory, from 1; messages of another one are refused.
        events: events.jsonl of the run directory.
        metrics: counters and gauges of this process.
    """

    incarnation: int
    events: EventLog
    metrics: Metrics
