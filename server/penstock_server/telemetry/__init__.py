"""Output of a running study: events.jsonl, Prometheus metrics, logs, files of JSON lines."""

from penstock_server.telemetry.events import EventLog
from penstock_server.telemetry.jsonl import LineFile, read_lines
from penstock_server.telemetry.log import LOGS, ProcessLog, log_this_process
from penstock_server.telemetry.metrics import Metrics, write_targets
from penstock_server.telemetry.plain_text import plain_text
from penstock_server.telemetry.run import ServerRun
from penstock_server.telemetry.strict_json import strict_json

__all__ = [
    "LOGS",
    "EventLog",
    "LineFile",
    "Metrics",
    "ProcessLog",
    "ServerRun",
    "log_this_process",
    "plain_text",
    "read_lines",
    "strict_json",
    "write_targets",
]
