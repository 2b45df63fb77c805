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
    """A time without training.

    Attributes:
        kind: what died first: "rank", "coordinator", "ray", or "server", which is all of it.
        seconds: from the last training step before to the first after.
        deaths: kinds of everything that died before training was seen to go on, in order; the first is `kind`.
    """

    kind: str
    seconds: float
    deaths: tuple[str, ...] = ()


class Outages:
    """Those of a study so far, of earlier lives of its server too (they are events), and the one that may be under way.

    A server that was killed cannot say when it last trained; its last line of metrics.jsonl does, to a second.
    """

    def __init__(self, directory: Path) -> None:
        self._log = EventLog(directory / "events.jsonl")
        self.ended: list[Outage] = []
        self._deaths: list[str] = []  # of the outage under way
        self._since = 0.0  # time.monotonic() of the last training step before it
        last = ""
        for event in read_lines(directory / "events.jsonl"):
            name = str(event.get("event"))
            if name == "outage":
                kind = str(event["kind"])
                deaths = event.get("deaths", [kind])  # not written by earlier versions
                self.ended.append(Outage(kind, float(event["seconds"]), tuple(map(str, deaths))))
            elif name in _STUDY_EVENTS and "simulation" not in event:
                last = name
        self._metrics = directory / "metrics.jsonl"
        if last in ("started", "restarted"):
            self.begin("server", [])

    def begin(self, kind: str, ranks: Sequence[RankStatus]) -> None:
        """Note that something died; no outage begins where nothing had been trained, and one under way goes on.

        Args:
            kind: what died, as in `Outage`.
            ranks: the trainer ranks as last seen.
        """
        steps = [r.last_step for r in ranks if r.last_step is not None]
        if self._deaths:
            pass
        elif steps:
            self._since = max(steps)
        elif self._metrics.is_file():  # nobody had asked since training began, or nobody can be asked
            self._since = time.monotonic() - max(0.0, time.time() - self._metrics.stat().st_mtime)
        else:
            return
        self._deaths.append(kind)

    def note(self, ranks: Sequence[RankStatus]) -> None:
        """How the ranks of the server that runs now stand: with its first training step the outage has ended."""
        steps = [r.first_step for r in ranks if r.first_step is not None]
        if self._deaths and steps and min(steps) > self._since:
            outage = Outage(self._deaths[0], round(min(steps) - self._since, 3), tuple(self._deaths))
            self._deaths = []
            self.ended.append(outage)
            self._log.write("outage", **asdict(outage))
