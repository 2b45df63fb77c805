"""events.jsonl: the events of a study, one JSON object a line.

Every line has `event` (its name) and `timestamp`. `finished`, `failed` and `stopped` concern one simulation where the
line has the key `simulation`, and the whole study where it has not.

| event | keys | meaning |
|---|---|---|
| started | incarnation, engine; with Ray pid, ranks | the server is ready |
| restarted | incarnation, kind, message | the engine restarts the server after the death of one of its processes |
| outage | kind, seconds, deaths | training went on after a time without training |
| finished, failed, stopped | message | the study ended |
| client | pid, host | a client connected |
| client_lost | pid, host, message | a client was given up |
| schema | fields | the first announcement fixed the fields |
| assigned | simulation, attempt, pid | a simulation was handed out |
| finished | simulation, attempt, steps | a simulation finished |
| failed | simulation, attempt, again, message | a simulation failed; `again`: whether it is handed out again |
| returned | simulation, attempt | a client gave a simulation back, which is handed out again |
| redrawn | simulation, replacement | another point of the parameter space replaces a failed simulation |
| solver | simulation, outcome, text | a worker's message on a solver whose stream had ended |
| not_deterministic | simulation, steps, before | a resumed simulation gave fewer time steps than before |
| refused | reason, kind, text | a message of a client was refused |
| checkpoint | number, batches, seconds | a checkpoint was written |
| checkpoint_failed | number, message | a checkpoint could not be written |
| checkpoint_left_over | message | an old or unfinished checkpoint could not be removed |
| mesh_lost | field, message | mesh geometry could not be written |
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from penstock_server.telemetry.jsonl import LineFile
from penstock_server.telemetry.strict_json import strict_json

MAX_TEXT = 4000
"""Characters of a text in an event; longer texts are cut."""


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
        self._file.append(strict_json({**cut, "event": event, "timestamp": timestamp}, default=repr))

    def warnings(self) -> tuple[str, ...]:
        """Return what could not be written, for the report."""
        return self._file.warnings()
