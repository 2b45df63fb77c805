"""The Ray engine: starts the server on Ray, restarts it when a part of it dies, and follows the study to its end."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from penstock_server.engines.ending import StudyEnd
from penstock_server.engines.engine import StudyStatus
from penstock_server.engines.journal import RunJournal
from penstock_server.engines.ray.disk_room import has_room
from penstock_server.engines.ray.joined_ray import join_ray
from penstock_server.engines.ray.local_ray import start_local_ray
from penstock_server.engines.ray.ray_cluster import DiskFull, EngineError, RayCluster, RayFailed
from penstock_server.engines.ray.server_processes import ServerDied, ServerProcesses, ServerResults, ServerStatus
from penstock_server.engines.results import CoordinatorResults, StudyResults, study_status
from penstock_server.network import CONNECT_FILE, next_incarnation, open_keys
from penstock_server.study import Study
from penstock_server.trainer_rank import RankStatus

LOOK_SECONDS = 0.5  # between two looks whether a full disk has room again

_log = logging.getLogger("penstock.engine")


class RayEngine:
    """Runs one study on a Ray of its own or on one that runs already; see `penstock_server.engines.engine.Engine`.

    When the coordinator, a trainer rank or Ray itself dies, or the ranks lose the connection between them, the rest of
    the server is ended and all of it started again from the last complete checkpoint under the next incarnation, at
    most `[server] max_restarts` times. Where a full disk prevents it, the engine waits for room first. A failure that
    an actor reports of itself (a training that diverges, a model that cannot be made) ends the study, since it would
    fail again.

    Args:
        study: the study.
        directory: its run directory.
        threads: CPU threads of each trainer rank.
        own_cores: cores, by number, that the training threads alone run on; empty for no such restriction.
        address: of a Ray that runs already; None for a Ray of its own on this machine.
        log: told what the user should know.
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
        self._threads, self._own_cores, self._address = threads, own_cores, address
        self._journal = RunJournal(study, self._directory)
        self._end = StudyEnd(self._halt)
        self._keys = open_keys(self._directory)
        self._restarts = 0
        self._incarnation = next_incarnation(self._directory)
        self._ray: RayCluster | None = None  # None: it is down
        self._server: ServerProcesses | None = None  # None: it is down
        self._waiting: ServerDied | None = None  # for room on a full disk, to start again after this death
        self._waiting_until = 0.0  # by time.monotonic()
        self._seen: ServerStatus | None = None  # the last status that the server has given
        self._results: ServerResults | None = None
        self._warnings: list[str] = []

    def start(self) -> Path:
        """Start Ray and the server.

        Raises:
            EngineError: the server cannot be started.
        """
        self._ray = self._start_ray()
        try:
            self._serve(self._ray)
        except ServerDied as death:
            self._restart(death)
        except BaseException:
            self._stop_ray()
            raise
        if self._server is None:
            self._stop_ray()
            raise EngineError(f"the server did not start: {self._end.error or self._waiting}")
        return self._directory / CONNECT_FILE

    def status(self) -> StudyStatus:
        """Return the state of the study; restart the server where it has died."""
        try:
            seen = self._server.status() if self._server is not None and self._results is None else None
        except ServerDied as death:
            self._restart(death)
            seen = None
        if seen is not None:
            self._seen = seen
            self._journal.outages.note(seen.ranks)
        elapsed, error, latest = self._journal.elapsed, self._end.error, self._seen
        if latest is None:
            return StudyStatus(phase="failed" if error else "starting", elapsed=elapsed, message=error)
        coordinator = latest.coordinator
        if any(rank.over for rank in latest.ranks):
            coordinator = replace(coordinator, wanted_workers=0)
        return study_status(
            latest.ranks, coordinator, elapsed=elapsed, error=error or latest.error, stopped=self._end.stopped
        )

    def worker_exited(self, pid: int, code: int | None, message: str) -> None:
        """Note that a worker process has ended."""
        if (server := self._server) is not None:
            server.worker_exited(pid, f"exit code {code}: {message}")

    def stop(self, reason: str) -> None:
        """End the study early."""
        self._end.stop(reason)

    def fail(self, reason: str) -> None:
        """End the study because it cannot go on."""
        self._end.fail(reason)

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds; restart the server where it has died. Return True when the study has ended."""
        if self._results is None and self._server is not None:
            try:
                if self._server.trained(timeout):
                    self._results = self._server.results()
            except ServerDied as death:
                self._restart(death)
        elif self._waiting is not None:
            self._wait_for_room(timeout)
        return self._results is not None or (self._server is None and self._waiting is None)

    def close(self) -> dict[str, Any]:
        """End the study, return its report and shut Ray down."""
        try:
            if not self.wait(0):
                self.stop("closed")
                limit = self._study.timeouts.stop
                if not self.wait(limit):
                    self._warnings.append(
                        f"the server did not stop within {limit:g} s ([timeouts] stop): the last checkpoint, validation "
                        "or exported model may be missing"
                    )
            return self._report()
        finally:
            self._stop_ray()

    def _halt(self, reason: str) -> None:
        if (server := self._server) is not None:
            server.stop(reason)

    def _start_ray(self) -> RayCluster:
        environment = _actor_environment(self._threads)
        if self._address is None:
            return start_local_ray(self._study, self._directory, environment)
        return join_ray(self._address, self._study, self._directory, environment, threads=self._threads, log=self._log)

    def _stop_ray(self) -> None:
        if self._ray is not None:
            self._ray.stop()
            self._ray = None

    def _serve(self, ray: RayCluster) -> None:
        """Start the server of this incarnation."""
        server = ServerProcesses(
            self._study,
            self._directory,
            ray,
            incarnation=self._incarnation,
            keys=self._keys,
            threads=self._threads,
            own_cores=self._own_cores,
        )
        try:
            warnings = server.start()
        except BaseException:
            server.end()
            raise
        for warning in warnings:
            self._log(f"warning: {warning}")
        self._warnings += [w for w in warnings if w not in self._warnings]
        self._server = server

    def _wait_for_room(self, timeout: float) -> None:
        """Start the server again if the disk has room, or if the time for waiting is over.

        Otherwise wait for at most `timeout` seconds.
        """
        assert self._waiting is not None
        if self._end.requested or time.monotonic() > self._waiting_until or has_room(self._directory):
            death, self._waiting = self._waiting, None
            self._start_again(death, None)
        else:
            time.sleep(min(timeout, LOOK_SECONDS))

    def _restart(self, death: ServerDied) -> None:
        """End what is left of the server, and start it again."""
        ended, self._server = self._server, None
        if self._seen is not None:
            self._journal.outages.begin(death.kind, self._seen.ranks)
        self._start_again(death, ended)

    def _start_again(self, death: ServerDied, ended: ServerProcesses | None) -> None:
        """Start the server, up to [server] max_restarts times; after that the study has failed.

        Args:
            death: what has ended the server.
            ended: the server that has died, to be ended as a whole; None if this is done.
        """
        while True:
            if ended is not None:
                ended.end()
            why = f"the server failed: {death}"
            limit = self._study.server.max_restarts
            if self._end.requested or self._restarts >= limit:
                if not self._end.requested:
                    why += f", and the server had been restarted {limit} times ([server] max_restarts)"
                self._end.note_error(f"{why}; `penstock resume {self._directory}` goes on from the last checkpoint")
                return
            self._restarts += 1
            self._incarnation = next_incarnation(self._directory)
            self._journal.events.write("restarted", incarnation=self._incarnation, kind=death.kind, message=str(death))
            _log.warning("%s", why)
            self._log(
                f"{why}: starting again as incarnation {self._incarnation} (restart {self._restarts} of at most {limit})"
            )
            try:
                if self._ray is not None and (self._ray.died() or death.kind == "ray"):
                    self._stop_ray()
                if self._ray is None:
                    self._ray = self._start_ray()
                self._serve(self._ray)
                break
            except ServerDied as again:
                death = again
            except RayFailed as error:
                death = ServerDied("ray", str(error))
            except DiskFull as error:
                seconds = self._study.server.server_timeout
                self._log(f"{error}: waiting up to {seconds:g} s for room in {self._directory}")
                self._waiting = ServerDied(death.kind, str(error))
                self._waiting_until = time.monotonic() + seconds
                return
            except EngineError as error:
                _log.error("the server cannot be started again", exc_info=error)
                self._end.note_error(f"{why}, and cannot be started again: {error}")
                return
            ended = None
        if self._end.requested:  # while it was down
            self._halt(self._end.stopped or self._end.error)

    def _report(self) -> dict[str, Any]:
        results = self._results or self._last_seen()
        coordinator = results.study.coordinator
        warnings = (*self._warnings, *coordinator.warnings)
        report = self._journal.report(
            replace(results.study, coordinator=replace(coordinator, warnings=warnings)),
            self._end,
            incarnation=self._incarnation,
            error=results.error,
        )
        if self._server is not None:
            with suppress(ServerDied):  # the report has everything
                self._server.close()
        return report

    def _last_seen(self) -> ServerResults:
        """Make the results of a server that died, or stopped too slowly, from the last status that it has given."""
        seen = self._seen
        if seen is None:
            return ServerResults(StudyResults([RankStatus()], unique=0, coordinator=CoordinatorResults()), "")
        arrived = sum(r.buffer.received for r in seen.ranks if r.buffer is not None)
        coordinator = CoordinatorResults(simulations=seen.coordinator.simulations, expected=arrived)
        return ServerResults(StudyResults(seen.ranks, unique=arrived, coordinator=coordinator), "")


def _actor_environment(threads: int) -> dict[str, str]:
    """Return the OpenMP variables of the actors."""
    names = ("OMP_WAIT_POLICY", "KMP_BLOCKTIME", "GOMP_SPINCOUNT")
    environment = {name: os.environ[name] for name in names if name in os.environ}
    return {**environment, "OMP_NUM_THREADS": str(threads)}
