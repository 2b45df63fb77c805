"""events.jsonl: the events of a study, one JSON object a line.

Every line has `event` (its name) and `timestamp`. `finished`, `failed` and `stopped` concern one simulation where the
line has the key `simulation`, and the whole study where it has not.

| event | keys | meaning |
|---|---|---|
| started | incarnation, engine; with Ray pid, ranks | the server is ready |
| restarted | incarnation, kind, message | the engine restarts the server after the death of one of its processes |
| outage | kind, seconds, deaths | training went on after a time without training |
| finished, failed, stopped | message | the study ended |
| client | worker, pid, host | a client connected |
| client_lost | worker, pid, host, message | a client was given up |
| schema | fields | the first announcement fixed the fields |
| assigned | simulation, attempt, pid | a simulation was handed out |
| finished | simulation, attempt, steps | a simulation finished |
| failed | simulation, attempt, again, message, worker | a simulation failed; `again`: whether it is handed out again |
| returned | simulation, attempt | a client gave a simulation back, which is handed out again |
| redrawn | simulation, replacement | another point of the parameter space replaces a failed simulation |
| solver | simulation, outcome, text, worker | a worker's message on a solver whose stream had ended |
| not_deterministic | simulation, steps, before | a resumed simulation gave fewer time steps than before |
| refused | reason, kind, text, worker | a message of a client was refused |
| checkpoint | number, batches, seconds | a checkpoint was written |
| checkpoint_failed | number, message | a checkpoint could not be written |
| checkpoint_left_over | message | an old or unfinished checkpoint could not be removed |
| mesh_lost | field, message | mesh geometry could not be written |

`worker` is the name of the key of the client that caused a line. The lines of one kind that one key can cause are
bounded; those left out are counted in the report's warnings.
"""

from __future__ import annotations

import json
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any

from penstock_server.telemetry.jsonl import LineFile
from penstock_server.telemetry.strict_json import strict_json

MAX_TEXT = 4000
"""Bytes of a text in an event as it is written; longer texts are cut."""

BUDGET = 8 * 2**20  # bytes of the lines of one kind that one key can cause, at once
BUDGET_PER_SECOND = 200.0  # and so many more with time


class EventLog:
    """Appends events to a file that several processes may write to.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._file = LineFile(path)
        self._began = time.monotonic()
        self._spent: Counter[tuple[str, str]] = Counter()  # bytes, by key and event
        self._left_out: Counter[tuple[str, str]] = Counter()  # lines, likewise

    def write(self, event: str, **values: Any) -> None:
        """Append one event: its values, its name as `event`, the time (UTC, ISO 8601) as `timestamp`.

        An event that the disk does not take is counted and raises nothing.

        Args:
            event: the event's name.
            values: plain data; texts, some of which clients send, are cut at MAX_TEXT bytes.
        """
        self._file.append(_line(event, values))

    def write_for(self, worker: str, event: str, **values: Any) -> None:
        """Append an event that a client has caused, with its key as `worker`; count it where there are too many.

        Args:
            worker: name of the client's key.
            event: the event's name.
            values: as for `write`.
        """
        line, key = _line(event, {**values, "worker": worker}), (worker, event)
        if self._spent[key] + len(line) > BUDGET + BUDGET_PER_SECOND * (time.monotonic() - self._began):
            self._left_out[key] += 1
            return
        self._spent[key] += len(line)
        self._file.append(line)

    def warnings(self) -> tuple[str, ...]:
        """Return what could not be written, for the report."""
        left_out = (
            f"events.jsonl: {number} lines of the event {event!r} were left out, which the key {worker!r} has caused"
            for (worker, event), number in self._left_out.items()
        )
        return (*self._file.warnings(), *left_out)


def _line(event: str, values: Mapping[str, Any]) -> str:
    cut = {name: _cut(value) if isinstance(value, str) else value for name, value in values.items()}
    timestamp = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return strict_json({**cut, "event": event, "timestamp": timestamp}, default=repr)


def _cut(text: str) -> str:
    """Cut a text to MAX_TEXT bytes, as JSON writes it: a character may take up to twelve."""
    text = text[:MAX_TEXT]
    sizes = list(accumulate(len(json.dumps(character)) - 2 for character in text))
    return text[: bisect_right(sizes, MAX_TEXT)]
