"""The Ray engine: starts the server on Ray, starts it again when it dies, and follows the study to its end."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from penstock_server.coordinator import SimulationCounts
from penstock_server.engines.engine import StudyStatus
from penstock_server.engines.outages import Outages
from penstock_server.engines.ray.cluster import Cluster, EngineError, RayFailed
from penstock_server.engines.ray.joined_ray import JoinedRay
from penstock_server.engines.ray.local_ray import LocalRay
from penstock_server.engines.ray.server import Outcome, Server, ServerDied, Standing
from penstock_server.engines.report import build_report, study_outcome, study_status, write_report
from penstock_server.network import CONNECT_FILE, next_incarnation, open_keys
from penstock_server.study import Study
from penstock_server.telemetry import EventLog, ProcessLog
from penstock_server.trainer_rank import RankStatus

STOP_TIMEOUT = 60.0

_log = logging.getLogger("penstock.engine")


class RayEngine:
    """Runs one study on a Ray that it starts on this machine, or on one that runs already; see `penstock_server.engines.engine.Engine`.

    When the coordinator, a trainer rank or Ray itself dies, whatever is left of the server is ended and all of it started again from the
    last whole checkpoint under the next incarnation, at most `[server] max_restarts` times. A failure that an actor reports
    of itself (a training that diverges, a model that cannot be made) ends the study: it would fail again.

    Args:
        study, directory: what runs, and where its run directory is. threads: CPU threads of each trainer rank.
        own_cores: the cores, by number, that the training threads alone run on; empty: wherever this process may.
        address: of a Ray that runs already (`JoinedRay`); None: a Ray of its own. log: told what the user should know.
    """

    def __init__(
        self,
        study: Study,
        directory: Path,
        *,
        threads: int,
        own_cores: tuple[int, ...] = (),
        address: str | None = None,
        log: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self._study, self._directory, self._log = study, directory.absolute(), log
        self._threads, self._own_cores = threads, own_cores
        self._begun = time.monotonic()
        self._stopped = ""
        self._error = ""
        environment = {
            name: os.environ[name]
            for name in ("OMP_WAIT_POLICY", "KMP_BLOCKTIME", "GOMP_SPINCOUNT")
            if name in os.environ
        }
        environment["OMP_NUM_THREADS"] = str(threads)
        self._ray: Cluster = (
            LocalRay(study, self._directory, environment)
            if address is None
            else JoinedRay(address, study, self._directory, environment, threads=threads, log=log)
        )
        self._keys = open_keys(self._directory)
        self._process_log = ProcessLog(self._directory, "server")
        self._events = EventLog(self._directory / "events.jsonl")
        self._outages = Outages(self._directory)
        self._restarts = 0
        self._incarnation = next_incarnation(self._directory)
        self._server: Server | None = None  # None: it is down
        self._standing: Standing | None = None  # as it was last seen
        self._outcome: Outcome | None = None
        self._warnings: list[str] = []

    def start(self) -> Path:
        self._ray.start()
        try:
            return self._serve()
        except ServerDied as death:
            self._restart(death)
        except BaseException:
            self._ray.stop()
            raise
        if self._server is None:
            self._ray.stop()
            raise EngineError(f"the server did not start: {self._error}")
        return self._directory / CONNECT_FILE

    def status(self) -> StudyStatus:
        server, elapsed = self._server, time.monotonic() - self._begun
        try:
            standing = server.standing() if server is not None and self._outcome is None else None
        except ServerDied as death:
            self._restart(death)
            standing = None
        if standing is not None:
            self._standing = standing
            self._outages.note(standing.ranks)
        latest = self._standing
        if latest is None:
            return StudyStatus(phase="failed" if self._error else "starting", elapsed=elapsed, message=self._error)
        return study_status(
            latest.ranks,
            latest.simulations,
            wanted_workers=0 if any(r.over for r in latest.ranks) else latest.wanted_workers,
            elapsed=elapsed,
            production_over=latest.production_over,
            error=self._error or latest.error,
            stopped=self._stopped,
            given_up=latest.given_up,
        )

    def worker_exited(self, pid: int, code: int | None, message: str) -> None:
        if (server := self._server) is not None:
            server.worker_exited(pid, f"exit code {code}: {message}")

    def stop(self, reason: str) -> None:
        self._stopped = self._stopped or reason
        if (server := self._server) is not None:
            server.stop(reason)

    def fail(self, reason: str) -> None:
        self._error = self._error or reason
        self.stop(reason)

    def wait(self, timeout: float) -> bool:
        if self._outcome is None and self._server is not None:
            try:
                if self._server.trained(timeout):
                    self._outcome = self._server.outcome()
            except ServerDied as death:
                self._restart(death)
        return self._outcome is not None or self._server is None

    def close(self) -> dict[str, Any]:
        try:
            if not self.wait(0):
                self.stop("closed")
                self.wait(STOP_TIMEOUT)
            return self._report()
        finally:
            self._ray.stop()

    def _serve(self) -> Path:
        """Start the server of this incarnation."""
        server = Server(
            self._study,
            self._directory,
            self._ray,
            incarnation=self._incarnation,
            keys=self._keys,
            threads=self._threads,
            own_cores=self._own_cores,
        )
        try:
            path, warnings = server.start()
        except BaseException:
            server.end()
            raise
        for warning in warnings:
            self._log(f"warning: {warning}")
        self._warnings += [w for w in warnings if w not in self._warnings]
        self._server = server
        return path

    def _restart(self, death: ServerDied) -> None:
        """Start everything again, as often as it takes and may be; where that fails, the server stays down and the study has failed."""
        ended, self._server = self._server, None
        while True:
            if self._standing is not None:
                self._outages.begin(death.kind, self._standing.ranks)
            if ended is not None:
                ended.end()
            why = f"a server process died: {death}"
            limit = self._study.server.max_restarts
            if self._stopped or self._error or self._restarts >= limit:
                if not (self._stopped or self._error):
                    why += f", and the server had been restarted {limit} times ([server] max_restarts)"
                self._error = (
                    self._error or f"{why}; `penstock resume {self._directory}` goes on from the last checkpoint"
                )
                return
            self._restarts += 1
            self._incarnation = next_incarnation(self._directory)
            self._events.write("restarted", incarnation=self._incarnation, kind=death.kind, message=str(death))
            _log.warning("%s", why)
            self._log(
                f"{why}: starting again as incarnation {self._incarnation} (restart {self._restarts} of at most {limit})"
            )
            try:
                if self._ray.died() or death.kind == "ray":
                    self._ray.stop()
                    self._ray.start()
                self._serve()
                break
            except ServerDied as again:
                death = again
            except RayFailed as error:
                death = ServerDied("ray", str(error))
            except EngineError as error:
                _log.error("the server cannot be started again", exc_info=error)
                self._error = f"{why}, and cannot be started again: {error}"
                return
            ended = None
        if self._stopped or self._error:  # asked for meanwhile
            self.stop(self._stopped or self._error)

    def _report(self) -> dict[str, Any]:
        outcome = self._outcome or self._last_seen()
        self._outages.note(outcome.ranks)
        simulations = outcome.coordinator["simulations"]
        status, message = study_outcome(outcome.ranks, simulations, self._error or outcome.control_error, self._stopped)
        report = build_report(
            self._study,
            status=status,
            message=message,
            wall_seconds=time.monotonic() - self._begun,
            incarnations=self._incarnation,
            unique=outcome.unique,
            ranks=outcome.ranks,
            outages=self._outages.ended,
            **{**outcome.coordinator, "warnings": [*self._warnings, *outcome.coordinator["warnings"]]},
        )
        write_report(self._directory, report)
        self._events.write(status, message=message)
        self._process_log.close()
        if self._server is not None:
            with suppress(ServerDied):  # it has said everything
                self._server.close()
        return report

    def _last_seen(self) -> Outcome:
        """Of a server that died, or stopped too slowly: what it had last said."""
        standing = self._standing
        ranks = [RankStatus()] if standing is None else standing.ranks
        arrived = sum(r.buffer.received for r in ranks if r.buffer is not None)
        coordinator = {
            "simulations": SimulationCounts() if standing is None else standing.simulations,
            "expected": arrived,
            "blocked_seconds": 0.0,
            "failures": {},
            "control_refused": {},
            "warnings": (),
        }
        return Outcome(ranks, arrived, "", coordinator)
