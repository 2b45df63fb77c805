"""What a study tells while it runs: events.jsonl, Prometheus metrics, files of JSON lines."""

from penstock_server.telemetry.events import EventLog
from penstock_server.telemetry.jsonl import LineFile, read_lines
from penstock_server.telemetry.metrics import Metrics, write_targets
from penstock_server.telemetry.run import ServerRun

__all__ = ["EventLog", "LineFile", "Metrics", "ServerRun", "read_lines", "write_targets"]
