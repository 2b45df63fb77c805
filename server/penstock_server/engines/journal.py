"""The run directory as an engine uses it: events and outages while the study runs, the report at its end."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from penstock_server.engines.ending import StudyEnd
from penstock_server.engines.outages import Outages
from penstock_server.engines.report import build_report, write_report
from penstock_server.engines.results import StudyResults, study_outcome
from penstock_server.study import Study
from penstock_server.telemetry import EventLog, ProcessLog, write_targets

_log = logging.getLogger("penstock.engine")


class RunJournal:
    """Writes what happens to a study into its run directory, from the engine's start to the report.

    Args:
        study: the study.
        directory: its run directory.

    Attributes:
        log: logs/server.log, open until the report is written.
        events: events.jsonl.
        outages: times without training after a crash, those of earlier lives of the server included.
    """

    def __init__(self, study: Study, directory: Path) -> None:
        self._study, self._directory = study, directory
        self._begun = time.monotonic()
        self.log = ProcessLog(directory, "server")
        self.outages = Outages(directory)
        self.events = EventLog(directory / "events.jsonl")

    def warnings(self) -> tuple[str, ...]:
        """Return what could not be written into events and log, for the report."""
        return (*self.events.warnings(), *self.log.warnings())

    @property
    def elapsed(self) -> float:
        """Seconds since the engine was made."""
        return time.monotonic() - self._begun

    def write_targets(self, endpoints: Sequence[str]) -> None:
        """Write targets.json, which tells Prometheus where the metrics are."""
        write_targets(self._directory / "targets.json", self._study.study.name, list(endpoints))

    def report(self, results: StudyResults, end: StudyEnd, *, incarnation: int, error: str = "") -> dict[str, Any]:
        """Write report.json and the study's last event.

        Args:
            results: what coordinator and trainer ranks say at the end.
            end: why the study has ended.
            incarnation: of the last server.
            error: why the coordinator has failed, where `end` does not know; "" where it has not.

        Returns:
            The report.

        Raises:
            ReportError: report.json cannot be written.
        """
        self.outages.note(results.ranks)
        status, message = study_outcome(results.ranks, results.coordinator.simulations, end.error or error, end.stopped)
        report = build_report(
            self._study,
            results,
            status=status,
            message=message,
            wall_seconds=self.elapsed,
            incarnations=incarnation,
            outages=self.outages.ended,
        )
        write_report(self._directory, report)
        self.events.write(status, message=message)
        _log.info("the study has ended: %s (%s)", status, message)
        self.log.close()
        return report
