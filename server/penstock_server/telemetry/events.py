"""events.jsonl: what happened in a study, one JSON object a line (simulations assigned, finished, failed; clients; refusals)."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from penstock_server.telemetry.jsonl import LineFile

MAX_TEXT = 4000


class EventLog:
    """Appends events to a file that several processes may write to.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._file = LineFile(path)

    def write(self, event: str, **values: Any) -> None:
        """Append one event: its values, its name as `event`, the time (UTC, ISO 8601) as `timestamp`.

        An event that the disk does not take is counted and raises nothing.

        Args:
            event: the event's name.
            values: plain data; texts, some of which clients send, are cut at MAX_TEXT characters.
        """
        cut = {name: value[:MAX_TEXT] if isinstance(value, str) else value for name, value in values.items()}
        timestamp = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        self._file.append(json.dumps({**cut, "event": event, "timestamp": timestamp}, default=repr))

    def warnings(self) -> tuple[str, ...]:
        """What could not be written, for the report."""
        return self._file.warnings()
