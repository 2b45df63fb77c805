"""events.jsonl: what happened in a study, one JSON object a line (simulations assigned, finished, failed; clients; refusals)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TextIO

import structlog

MAX_TEXT = 4000


class EventLog:
    """Appends events to a file; each line has the time (UTC, ISO 8601) and the event's name."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("a", buffering=1)
        self._log = structlog.wrap_logger(
            structlog.WriteLogger(self._file),
            processors=[structlog.processors.TimeStamper(fmt="iso"), structlog.processors.JSONRenderer()],
            wrapper_class=structlog.BoundLogger,
        )

    def write(self, event: str, **values: Any) -> None:
        """Append one event; texts, some of which clients send, are cut at MAX_TEXT characters."""
        cut = {name: value[:MAX_TEXT] if isinstance(value, str) else value for name, value in values.items()}
        self._log.info(event, **cut)

    def close(self) -> None:
        self._file.close()
