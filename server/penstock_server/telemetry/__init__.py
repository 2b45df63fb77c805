"""What a study tells while it runs: events.jsonl, Prometheus metrics, files of JSON lines."""

from penstock_server.telemetry.events import EventLog
from penstock_server.telemetry.jsonl import LineFile, read_lines
from penstock_server.telemetry.metrics import Metrics, write_targets

__all__ = ["EventLog", "LineFile", "Metrics", "read_lines", "write_targets"]
