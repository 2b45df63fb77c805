"""The actors of the Ray engine: the coordinator and the trainer ranks, each with its socket and metrics in a process of its own."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch

from penstock_client.errors import PenstockError
from penstock_server.checkpoint import load_latest_if_any
from penstock_server.coordinator import Coordinator, SimulationCounts, make_plan, make_spares, make_welcome
from penstock_server.network import Message, RouterLoop, StudyKeys, own_address, write_connect_file
from penstock_server.study import Schema, Study
from penstock_server.telemetry import EventLog, Metrics, ServerRun, log_this_process, write_targets
from penstock_server.trainer_rank import CHECKPOINTS, RankCallbacks, RankStatus, TrainerRank
from penstock_server.training import MeetingPoint, PeersLost


@dataclass(frozen=True)
class RankStarted:
    """A rank's sockets are open. endpoint: of its data; metrics: of Prometheus; meeting: where rank 0 waits for the others.

    restored: what a checkpoint has for the coordinator, and how much of each simulation has arrived at this rank.
    """

    endpoint: str
    metrics: str
    meeting: tuple[str, int] | None
    restored: dict[str, Any] | None
    warnings: tuple[str, ...]


class CoordinatorActor:
    """The coordinator with its control socket, metrics and events, in a process of its own."""

    def __init__(self, study: Study, directory: Path, incarnation: int, keys: StudyKeys) -> None:
        self._study, self._directory, self._incarnation, self._keys = study, directory, incarnation, keys
        self._log = log_this_process(directory, "coordinator")
        self._events = EventLog(directory / "events.jsonl")
        self._metrics = Metrics("coordinator", study.study.name)
        self._told = False
        self._error = ""

    def pid(self) -> int:
        return os.getpid()

    def start(
        self,
        ranks: list[Any],
        endpoints: list[str],
        metrics: list[str],
        rank_pids: list[int],
        restored: dict[str, Any] | None,
    ) -> Path:
        """Open the control socket and write connect.json; returns its path."""
        study, host = self._study, own_address(self._study.server.host)
        self._ranks = ranks
        self._coordinator = Coordinator(
            make_plan(study),
            make_welcome(study, tuple(endpoints)),
            study,
            ServerRun(self._incarnation, self._events, self._metrics),
            on_schema=self._configure,
            schema=None if restored is None else restored["schema"],
            spares=make_spares(study),
        )
        if restored is not None:
            self._coordinator.load_state_dict(restored["coordinator"], restored["arrived"].__getitem__)
        self._loop = RouterLoop(
            "coordinator",
            host,
            self._keys,
            self._handle,
            metrics=self._metrics,
            tick=self._tick,
            on_error=self._broken,
        )
        self._loop.start()
        write_targets(self._directory / "targets.json", study.study.name, [self._metrics.serve(host), *metrics])
        self._events.write("started", incarnation=self._incarnation, engine="ray", pid=os.getpid(), ranks=rank_pids)
        return write_connect_file(self._directory, study, self._incarnation, self._loop.endpoint, self._keys)

    def status(self) -> tuple[SimulationCounts, int, bool, str]:
        """Counts, wanted workers, whether production is over, and what is broken ("": nothing)."""
        c = self._coordinator
        return c.counts(), c.wanted_workers, c.production_over, self._error

    def error(self) -> str:
        """What is broken; "" while nothing is."""
        return self._error

    def given_up(self) -> tuple[tuple[str, int], ...]:
        """As in StudyStatus."""
        return self._coordinator.given_up()

    def state_dict(self) -> dict[str, Any]:
        return self._coordinator.state_dict()

    def static_arrived(self, name: str) -> None:
        def note() -> list[Message]:
            self._coordinator.static_arrived(name)
            return []

        self._loop.post(note)

    def worker_exited(self, host: str, pid: int, message: str) -> None:
        self._loop.post(lambda: self._after(self._coordinator.worker_exited(host, pid, message)))

    def stop(self) -> None:
        """Hand out nothing more; clients are told to abandon what they do."""
        self._loop.post(lambda: self._after(self._coordinator.stop()))

    def outcome(self, arrived: dict[int, int]) -> dict[str, Any]:
        """What the report takes from the coordinator. arrived: samples by simulation in the ranks' ledgers."""
        return {
            "simulations": self._coordinator.counts(),
            "expected": self._coordinator.expected(lambda i: arrived.get(i, 0)),
            "blocked_seconds": self._coordinator.blocked_seconds,
            "failures": self._coordinator.failures(),
            "control_refused": self._metrics.refusals(),
            "warnings": (*self._events.warnings(), *self._log.warnings()),
        }

    def close(self) -> None:
        self._loop.close()

    def _handle(self, peer: bytes, frames: list[bytes], now: float) -> list[Message]:
        return self._after(self._coordinator.handle(peer, frames, now))

    def _tick(self, now: float) -> list[Message]:
        self._metrics.simulations(vars(self._coordinator.counts()))
        self._metrics.client_blocked_seconds.set(self._coordinator.blocked_seconds)
        return self._after(self._coordinator.tick(now))

    def _after(self, messages: list[Message]) -> list[Message]:
        if self._coordinator.production_over and not self._told:
            self._told = True
            for rank in self._ranks:
                rank.end_production.remote()
        return messages

    def _configure(self, schema: Schema) -> bool:
        def configure() -> None:
            try:
                ray.get([rank.configure.remote(schema) for rank in self._ranks])
                self._loop.post(self._coordinator.configured)
            except Exception as error:
                self._broken(error)

        threading.Thread(target=configure, name="configure", daemon=True).start()
        return False

    def _broken(self, error: BaseException) -> None:
        self._error = self._log.failure(error, plain=(PenstockError, ValueError))
        for rank in self._ranks:
            rank.fail.remote(self._error)


class RankActor:
    """A trainer rank with its data socket, in a process and on a device of its own."""

    def __init__(
        self,
        study: Study,
        directory: Path,
        rank: int,
        incarnation: int,
        keys: StudyKeys,
        coordinator: Any,
        threads: int,
        own_cores: tuple[int, ...],
    ) -> None:
        self._study, self._directory, self._number, self._incarnation = study, directory, rank, incarnation
        self._keys, self._coordinator = keys, coordinator
        self._threads, self._own_cores = threads, own_cores
        self._meeting: MeetingPoint | None = None
        self._log = log_this_process(directory, f"rank-{rank}")

    def pid(self) -> int:
        return os.getpid()

    def start(self) -> RankStarted:
        """Open the sockets."""
        try:
            return self._start()
        except Exception as error:
            self._log.failure(error, "starting")
            raise

    def _start(self) -> RankStarted:
        study, host = self._study, own_address(self._study.server.host)
        restore = load_latest_if_any(self._directory / CHECKPOINTS)
        self._rank = TrainerRank(
            study,
            self._directory,
            rank=self._number,
            incarnation=self._incarnation,
            callbacks=RankCallbacks(
                coordinator_state=lambda: ray.get(self._coordinator.state_dict.remote()),
                on_static=lambda name: self._coordinator.static_arrived.remote(name),
                on_over=lambda: ray.get(self._coordinator.stop.remote()),
            ),
            restore=restore,
        )
        self._loop = RouterLoop(
            f"rank-{self._number}",
            host,
            self._keys,
            self._rank.handle,
            metrics=self._rank.metrics,
            max_message=study.server.max_message,
            on_error=lambda error: self._rank.fail(self._log.failure(error, "ingest")),
        )
        self._loop.start()
        restored: dict[str, Any] | None = None
        if restore is not None:
            schema = Schema.from_state_dict(restore.parts["schema"])
            self._rank.configure(schema)
            restored = {
                "schema": schema,
                "coordinator": restore.parts["coordinator"],
                "arrived": {i: self._rank.arrived(i) for i in range(self._rank.simulations)},
            }
        if self._number == 0 and not self._rank.context.group.alone:
            self._meeting = MeetingPoint(host, study.training.ranks)
        return RankStarted(
            endpoint=self._loop.endpoint,
            metrics=self._rank.metrics.serve(host),
            meeting=None if self._meeting is None else self._meeting.address,
            restored=restored,
            warnings=() if restore is None else restore.skipped,
        )

    def configure(self, schema: Schema) -> None:
        try:
            self._rank.configure(schema)
        except Exception as error:
            self._log.failure(error, "making buffer and model ready")
            raise

    def train(self, meeting: tuple[str, int] | None) -> None:
        """Train until the study's end. meeting: where the ranks find each other; None where there is one."""
        if self._own_cores:
            # This thread's, and those that torch starts from it; receiving stays on the other cores.
            os.sched_setaffinity(0, self._own_cores)
        torch.set_num_threads(self._threads)
        group = self._rank.context.group
        try:
            if meeting is not None:
                group.join(self._meeting or meeting, own_address(self._study.server.host))
            self._rank.train()
        except PeersLost as lost:  # their end is theirs to report
            self._rank.stop(str(lost))
        except BaseException as error:
            self._rank.fail(self._log.failure(error))
        finally:
            group.leave()  # whoever waits for this rank waits no longer

    def end_production(self) -> None:
        self._rank.end_production()
        self._loop.post(self._rank.drop_incomplete)

    def stop(self, reason: str) -> None:
        self._rank.stop(reason)

    def fail(self, error: str) -> None:
        self._rank.fail(error)

    def status(self) -> RankStatus:
        return self._rank.status()

    def unique(self) -> tuple[int, dict[int, int]]:
        """Training samples in the ledger, in all and by simulation."""
        trained = self._rank.ledgers.trained
        return trained.total(), {i: trained.count(i) for i in trained.simulations()}

    def close(self) -> None:
        self._loop.close()
