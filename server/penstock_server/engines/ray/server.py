"""One life of the server: the coordinator and the trainer ranks of one incarnation, as Ray actors."""

from __future__ import annotations

import logging
import socket
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from penstock_server.coordinator import SimulationCounts
from penstock_server.engines.ray.actors import CoordinatorActor, RankActor, RankStarted
from penstock_server.engines.ray.cluster import START_TIMEOUT, Cluster, EngineError
from penstock_server.network import StudyKeys
from penstock_server.study import Study
from penstock_server.trainer_rank import RankStatus

_log = logging.getLogger("penstock.server")

ANSWER_SECONDS = 5.0  # that one look at how the actors stand may take
COORDINATOR = "coordinator"


class ServerDied(Exception):
    """A process of the server is gone, or does not answer any more.

    kind: "rank", "coordinator" or "ray". str(): what it was.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True)
class Standing:
    """How the server stands. given_up: as in StudyStatus. error: of the coordinator, "" where there is none."""

    ranks: list[RankStatus]
    simulations: SimulationCounts
    wanted_workers: int
    production_over: bool
    given_up: tuple[tuple[str, int], ...]
    error: str


@dataclass(frozen=True)
class Outcome:
    """What the report takes from the server. coordinator: keyword arguments of `build_report`."""

    ranks: list[RankStatus]
    unique: int
    control_error: str
    coordinator: dict[str, Any]


class Server:
    """Starts the actors, asks them, and notices when one of them dies: any call may raise ServerDied.

    Args:
        silence: seconds after which an actor that answers nothing is taken for dead.
    """

    def __init__(
        self,
        study: Study,
        directory: Path,
        cluster: Cluster,
        *,
        incarnation: int,
        keys: StudyKeys,
        threads: int,
        own_cores: tuple[int, ...],
    ) -> None:
        self.incarnation = incarnation
        self._cluster = cluster
        self._silence = study.server.server_timeout
        self._heard = time.monotonic()
        self._processes = cluster.watch({}, {})

        def options(bundle: int) -> dict[str, Any]:
            return {
                "num_cpus": 1,
                "max_concurrency": 16,
                **cluster.actor_options,
                "scheduling_strategy": PlacementGroupSchedulingStrategy(
                    cluster.group, placement_group_bundle_index=bundle
                ),
            }

        # Actor handles: Ray makes their methods at run time.
        self._coordinator: Any = (
            ray.remote(CoordinatorActor).options(**options(0)).remote(study, directory, incarnation, keys)
        )
        self._ranks: list[Any] = [
            ray.remote(RankActor)
            .options(**options(1 + rank), num_gpus=cluster.gpus_per_rank)
            .remote(study, directory, rank, incarnation, keys, self._coordinator, threads, own_cores)
            for rank in range(study.training.ranks)
        ]
        self._training: list[Any] = []

    def start(self) -> tuple[Path, tuple[str, ...]]:
        """Open the sockets, write connect.json, begin to train; returns the path of that file, and warnings.

        Raises EngineError for what an actor cannot do, which it could not do another time either.
        """
        actors = [self._coordinator, *self._ranks]
        names = [COORDINATOR, *(f"rank {n}" for n in range(len(self._ranks)))]
        try:
            pids = ray.get([actor.pid.remote() for actor in actors], timeout=START_TIMEOUT)
            self._processes = self._cluster.watch(
                dict(zip(names, pids, strict=True)), dict(zip(names, actors, strict=True))
            )
            started: list[RankStarted] = ray.get([rank.start.remote() for rank in self._ranks], timeout=START_TIMEOUT)
            connecting = self._coordinator.start.remote(
                self._ranks,
                [rank.endpoint for rank in started],
                [rank.metrics for rank in started],
                pids[1:],
                _restored(started),
            )
            path: Path = ray.get([connecting], timeout=START_TIMEOUT)[0]
        except RayActorError as error:
            raise self._death(error) from error
        except RayError as error:
            self._check()
            _log.error("the server did not start", exc_info=error)
            raise EngineError(f"the server did not start: {getattr(error, 'cause', None) or error}") from error
        self._training = [rank.train.remote(started[0].meeting) for rank in self._ranks]
        self._heard = time.monotonic()
        return path, tuple(dict.fromkeys(w for rank in started for w in rank.warnings))

    def trained(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds; whether training has ended on every rank."""
        done, _ = ray.wait(self._training, num_returns=len(self._training), timeout=timeout)
        self._check()
        if len(done) < len(self._training):
            return False
        self._get(done)
        return True

    def standing(self) -> Standing | None:
        """How it stands; None when it takes too long to answer this time."""
        coordinator = self._coordinator
        asked = [coordinator.status.remote(), coordinator.given_up.remote()]
        answers = self._ask([*asked, *(rank.status.remote() for rank in self._ranks)])
        if answers is None:
            return None
        (counts, wanted, over, error), given_up, *ranks = answers
        return Standing(ranks, counts, wanted, over, given_up, error)

    def outcome(self) -> Outcome:
        """What is left to say once training has ended; nothing is handed out any more."""
        self._coordinator.stop.remote()
        ranks = self._get([rank.status.remote() for rank in self._ranks])
        unique, by_simulation = 0, dict[int, int]()
        for total, counts in self._get([rank.unique.remote() for rank in self._ranks]):
            unique += total
            for simulation, number in counts.items():
                by_simulation[simulation] = by_simulation.get(simulation, 0) + number
        control_error, coordinator = self._get(
            [self._coordinator.error.remote(), self._coordinator.outcome.remote(by_simulation)]
        )
        return Outcome(ranks, unique, control_error, coordinator)

    def worker_exited(self, pid: int, text: str) -> None:
        self._coordinator.worker_exited.remote(socket.gethostname(), pid, text)

    def stop(self, reason: str) -> None:
        """End training with a checkpoint; returns at once."""
        self._coordinator.stop.remote()
        for rank in self._ranks:
            rank.stop.remote(reason)

    def close(self) -> None:
        """Let clients have their last answers, and close the sockets."""
        self._get([self._coordinator.close.remote()])
        self._get([rank.close.remote() for rank in self._ranks])

    def end(self) -> None:
        """Kill what is left of it: from then on nothing of this incarnation can write into the run directory."""
        self._processes.kill()
        self._processes.close()
        if not self._cluster.died():
            for actor in (self._coordinator, *self._ranks):
                ray.kill(actor)  # Ray must learn that their places are free, also of those whose process we do not know

    def _get(self, references: list[Any]) -> list[Any]:
        while (answers := self._ask(references)) is None:
            pass
        return answers

    def _ask(self, references: list[Any]) -> list[Any] | None:
        """Their answers; None when one has not come within ANSWER_SECONDS, which may happen for `silence` seconds."""
        try:
            answers: list[Any] = ray.get(references, timeout=ANSWER_SECONDS)
        except GetTimeoutError:
            self._check()
            silent = time.monotonic() - self._heard
            if silent > self._silence:
                done, _ = ray.wait(references[:1], timeout=0)
                kind = "rank" if done else COORDINATOR
                raise ServerDied(kind, f"the {kind} has answered nothing for {silent:.0f} s") from None
            return None
        except RayActorError as error:
            raise self._death(error) from error
        self._heard = time.monotonic()
        return answers

    def _check(self) -> None:
        if death := self._death_seen():
            raise death

    def _death(self, error: RayActorError) -> ServerDied:
        """Who has died, as the kernel says; Ray may say that an actor is gone a moment before it is."""
        self._processes.ended(patience=1.0)
        first_line = str(error).partition("\n")[0]
        return self._death_seen() or ServerDied("ray", f"Ray has lost an actor: {first_line}")

    def _death_seen(self) -> ServerDied | None:
        if daemon := self._cluster.died():
            return ServerDied("ray", f"{daemon} died")
        for name in self._processes.ended():
            kind = COORDINATOR if name == COORDINATOR else "rank"
            what = "the coordinator" if kind == COORDINATOR else f"trainer {name}"
            return ServerDied(kind, f"{what} (pid {self._processes.pid(name)}) died")
        return None


def _restored(ranks: list[RankStarted]) -> dict[str, Any] | None:
    """What a checkpoint has for the coordinator, with what has arrived at all ranks together; None where there is no checkpoint."""
    if ranks[0].restored is None:
        return None
    arrived: Counter[int] = Counter()
    for rank in ranks:
        if rank.restored is not None:
            arrived.update(rank.restored["arrived"])
    return {**ranks[0].restored, "arrived": arrived}
