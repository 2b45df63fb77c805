"""The Ray actor of the coordinator: its socket, metrics, events and log, in a process of its own."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import ray

from penstock_client.errors import PenstockError
from penstock_server.engines.ray.assignment_news import AssignmentNews
from penstock_server.engines.ray.rank_started import RankStarted
from penstock_server.engines.results import (
    CoordinatorResults,
    CoordinatorStatus,
    coordinator_results,
    coordinator_status,
)
from penstock_server.engines.setup import RestoredState, make_coordinator, set_coordinator_gauges
from penstock_server.engines.sockets import ControlSocket
from penstock_server.network import StudyKeys, own_address, write_connect_file
from penstock_server.study import Schema, Study
from penstock_server.telemetry import EventLog, Metrics, ServerRun, log_this_process, write_targets


class CoordinatorActor:
    """The coordinator in a process of its own.

    `start` makes the parts that may fail: Ray reports an exception of a constructor as the death of the actor, without
    its cause. All other methods but `pid` come after it.

    Args:
        study: the study.
        directory: its run directory.
        incarnation: of this server.
        keys: of the study.
    """

    def __init__(self, study: Study, directory: Path, incarnation: int, keys: StudyKeys) -> None:
        self._study, self._directory, self._keys = study, directory, keys
        self._log = log_this_process(directory, "coordinator")
        self._run = ServerRun(
            incarnation, EventLog(directory / "events.jsonl"), Metrics("coordinator", study.study.name)
        )
        self._error = ""

    def pid(self) -> int:
        """Return the id of this process."""
        return os.getpid()

    def start(
        self, ranks: list[Any], started: list[RankStarted], rank_pids: list[int], restored: RestoredState | None
    ) -> Path:
        """Open the control socket and write connect.json.

        Args:
            ranks: handles of the trainer ranks' actors.
            started: what they say of themselves.
            rank_pids: ids of their processes.
            restored: what a checkpoint holds for the coordinator; None for a new study.

        Returns:
            Path of connect.json.
        """
        study, run, host = self._study, self._run, own_address(self._study.server.host)
        self._ranks = ranks
        self._news = AssignmentNews(ranks, lambda number: self._control.admitted(number), self._broken)
        self._coordinator = make_coordinator(
            study,
            run,
            tuple(rank.endpoint for rank in started),
            on_schema=self._configure,
            on_assignment=self._news.tell,
            restored=restored,
        )
        self._control = ControlSocket(
            "coordinator",
            host,
            self._keys,
            self._coordinator,
            metrics=run.metrics,
            on_production_over=self._production_over,
            on_error=self._broken,
            on_hopeless=self._fail,
            on_tick=self._update_metrics,
        )
        self._news.start()
        self._control.start()
        write_targets(
            self._directory / "targets.json",
            study.study.name,
            [run.metrics.serve(host), *(rank.metrics for rank in started)],
        )
        run.events.write("started", incarnation=run.incarnation, engine="ray", pid=os.getpid(), ranks=rank_pids)
        return write_connect_file(self._directory, study, run.incarnation, self._control.endpoint, self._keys)

    def status(self) -> tuple[CoordinatorStatus, str]:
        """Return the coordinator's part of the study's status, and what is broken ("" while nothing is)."""
        return coordinator_status(self._coordinator), self._error

    def state_dict(self) -> dict[str, Any]:
        """Return the coordinator's part of a checkpoint."""
        return self._coordinator.state_dict()

    def static_arrived(self, name: str) -> None:
        """Note that a static field has arrived."""
        self._control.static_arrived(name)

    def worker_exited(self, host: str, pid: int, message: str) -> None:
        """Note that a worker process has ended."""
        self._control.worker_exited(host, pid, message)

    def stop(self) -> None:
        """Hand out no more simulations; clients are told to abandon the running ones."""
        self._control.stop()

    def results(self, arrived: dict[int, int]) -> tuple[CoordinatorResults, str]:
        """Return the coordinator's part of the report, and what is broken ("" where nothing is).

        Args:
            arrived: number of samples in the ranks' ledgers, by simulation id.
        """
        warnings = (*self._run.events.warnings(), *self._log.warnings())
        results = coordinator_results(self._coordinator, self._run.metrics, lambda i: arrived.get(i, 0), warnings)
        return results, self._error

    def close(self) -> None:
        """Send what is still to be sent and close the socket."""
        self._control.close()
        self._news.close()

    def _update_metrics(self) -> None:
        set_coordinator_gauges(self._coordinator, self._run)

    def _production_over(self) -> None:
        for rank in self._ranks:
            rank.end_production.remote()

    def _configure(self, schema: Schema) -> bool:
        def configure() -> None:
            try:
                ray.get([rank.configure.remote(schema) for rank in self._ranks])
                self._control.configured()
            except Exception as error:
                self._broken(error)

        threading.Thread(target=configure, name="configure", daemon=True).start()
        return False

    def _broken(self, error: BaseException) -> None:
        self._fail(self._log.failure(error, plain=(PenstockError, ValueError)))

    def _fail(self, reason: str) -> None:
        self._error = reason
        for rank in self._ranks:
            rank.fail.remote(self._error)
