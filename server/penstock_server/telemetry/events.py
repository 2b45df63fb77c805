"""events.jsonl: what happened in a study, one JSON object a line (simulations assigned, finished, failed; clients; refusals)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import structlog

from penstock_server.telemetry.jsonl import LineFile

MAX_TEXT = 4000


class EventLog:
    """Appends events to a file; each line has the time (UTC, ISO 8601) and the event's name. Several processes may write to one file."""

    def __init__(self, path: Path) -> None:
        self._file = LineFile(path)
        self._log = structlog.wrap_logger(
            _Lines(self._file),
            processors=[structlog.processors.TimeStamper(fmt="iso"), structlog.processors.JSONRenderer()],
            wrapper_class=structlog.BoundLogger,
        )

    def write(self, event: str, **values: Any) -> None:
        """Append one event; texts, some of which clients send, are cut at MAX_TEXT characters.

        One that the disk does not take is counted, and raises nothing.
        """
        cut = {name: value[:MAX_TEXT] if isinstance(value, str) else value for name, value in values.items()}
        self._log.info(event, **cut)

    def warnings(self) -> tuple[str, ...]:
        """What could not be written, for the report."""
        return self._file.warnings()


class _Lines:
    """The end of structlog's chain."""

    def __init__(self, file: LineFile) -> None:
        self.info = file.append
