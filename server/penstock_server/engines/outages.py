"""How long a study did not train after a process of its server had died."""

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
    """One period without training.

    Attributes:
        kind: which process died first: "rank", "coordinator", "ray", or "server" for the whole server.
        seconds: time from the last training step before the death to the first one after it.
        deaths: kinds of all processes that died before training continued, in order; the first is `kind`.
    """

    kind: str
    seconds: float
    deaths: tuple[str, ...] = ()


class Outages:
    """The outages of a study, including those of earlier lives of its server, which are in events.jsonl.

    A killed server cannot say when it last trained. The time of its last line in metrics.jsonl says so, to a second.

    Args:
        directory: the run directory.

    Attributes:
        ended: the outages that are over.
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
        """Note that a process died. An outage begins if the study had trained before and none is under way.

        Args:
            kind: what died, as in `Outage`.
            ranks: the trainer ranks as last seen.
        """
        steps = [r.last_step for r in ranks if r.last_step is not None]
        if self._deaths:
            pass
        elif steps:
            self._since = max(steps)
        elif self._metrics.is_file():  # the server died before its status was asked for
            self._since = time.monotonic() - max(0.0, time.time() - self._metrics.stat().st_mtime)
        else:
            return
        self._deaths.append(kind)

    def note(self, ranks: Sequence[RankStatus]) -> None:
        """Take the status of the running server's ranks; its first training step ends the outage.

        Args:
            ranks: the trainer ranks as last seen.
        """
        steps = [r.first_step for r in ranks if r.first_step is not None]
        if self._deaths and steps and min(steps) > self._since:
            outage = Outage(self._deaths[0], round(min(steps) - self._since, 3), tuple(self._deaths))
            self._deaths = []
            self.ended.append(outage)
            self._log.write("outage", **asdict(outage))
