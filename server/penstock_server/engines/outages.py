"""For how long a study was without training after a process of its server had died."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from penstock_server.telemetry import EventLog, read_lines
from penstock_server.trainer_rank import RankStatus

_STUDY_EVENTS = ("started", "restarted", "finished", "stopped", "failed")


@dataclass(frozen=True)
class Outage:
    """kind: what had died: "rank", "coordinator", "ray", or "server", which is all of it.

    seconds: from the last training step before to the first after.
    """

    kind: str
    seconds: float


class Outages:
    """Those of a study so far, of earlier lives of its server too (they are events), and the one that may be under way.

    A server that was killed cannot say when it last trained; its last line of metrics.jsonl does, to a second.
    """

    def __init__(self, directory: Path) -> None:
        self._log = EventLog(directory / "events.jsonl")
        self.ended: list[Outage] = []
        self._kind = ""  # of the outage under way
        self._since = 0.0  # time.monotonic() of the last training step before it
        last = ""
        for event in read_lines(directory / "events.jsonl"):
            name = str(event.get("event"))
            if name == "outage":
                self.ended.append(Outage(str(event["kind"]), float(event["seconds"])))
            elif name in _STUDY_EVENTS and "simulation" not in event:
                last = name
        self._metrics = directory / "metrics.jsonl"
        if last in ("started", "restarted"):
            self.begin("server", [])

    def begin(self, kind: str, ranks: Sequence[RankStatus]) -> None:
        """Something died; ranks: how they stood when last asked. Nothing begins where nothing had been trained."""
        if self._kind:
            return
        steps = [r.last_step for r in ranks if r.last_step is not None]
        if steps:
            self._kind, self._since = kind, max(steps)
        elif self._metrics.is_file():  # nobody had asked since training began, or nobody can be asked
            self._kind, self._since = kind, time.monotonic() - max(0.0, time.time() - self._metrics.stat().st_mtime)

    def note(self, ranks: Sequence[RankStatus]) -> None:
        """How the ranks of the server that runs now stand: with its first training step the outage has ended."""
        steps = [r.first_step for r in ranks if r.first_step is not None]
        if self._kind and steps and min(steps) > self._since:
            outage = Outage(self._kind, round(min(steps) - self._since, 3))
            self._kind = ""
            self.ended.append(outage)
            self._log.write("outage", **asdict(outage))
