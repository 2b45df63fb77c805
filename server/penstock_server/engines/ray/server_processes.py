"""One incarnation of the server: its coordinator and its trainer ranks as Ray actors."""

from __future__ import annotations

import logging
import socket
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from penstock_server.engines.ray.coordinator_actor import CoordinatorActor
from penstock_server.engines.ray.disk_room import is_full
from penstock_server.engines.ray.rank_actor import RankActor
from penstock_server.engines.ray.rank_started import RankStarted
from penstock_server.engines.ray.ray_cluster import DiskFull, EngineError, RayCluster
from penstock_server.engines.results import CoordinatorStatus, StudyResults
from penstock_server.engines.setup import RestoredState
from penstock_server.network import StudyKeys
from penstock_server.study import Study
from penstock_server.trainer_rank import RankStatus

_log = logging.getLogger("penstock.server")

COORDINATOR = "coordinator"


class ServerDied(Exception):
    """A process of the server has died, does not answer any more, or has lost the others.

    Args:
        kind: "rank", "coordinator" or "ray".
        text: what has happened.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True)
class ServerStatus:
    """The state of the server.

    Attributes:
        ranks: the trainer ranks, rank 0 first.
        coordinator: the coordinator's part of the study's status.
        error: what is broken in the coordinator; "" while nothing is.
    """

    ranks: list[RankStatus]
    coordinator: CoordinatorStatus
    error: str


@dataclass(frozen=True)
class ServerResults:
    """What the server says at the end.

    Attributes:
        study: what the report takes from it.
        error: what is broken in the coordinator; "" where nothing is.
    """

    study: StudyResults
    error: str


class ServerProcesses:
    """The actors of one incarnation: starts them, asks them, and notices a death. Any call may raise ServerDied.

    An actor that answers nothing for [server] server_timeout is taken for dead.

    Args:
        study: the study.
        directory: its run directory, absolute.
        cluster: where the actors run.
        incarnation: of this server.
        keys: of the study.
        threads: CPU threads of each trainer rank.
        own_cores: cores, by number, that the training threads alone run on; empty for no such restriction.
    """

    def __init__(
        self,
        study: Study,
        directory: Path,
        cluster: RayCluster,
        *,
        incarnation: int,
        keys: StudyKeys,
        threads: int,
        own_cores: tuple[int, ...],
    ) -> None:
        self._cluster = cluster
        self._silence, self._timeouts = study.server.server_timeout, study.timeouts
        self._heard = time.monotonic()
        self._seemed_lost = False  # the ranks, to each other, in the last status
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

    def start(self) -> tuple[str, ...]:
        """Open the sockets, write connect.json and begin to train.

        Returns:
            Warnings of the ranks.

        Raises:
            DiskFull: an actor cannot write a file.
            EngineError: an actor cannot do its part, and could not another time.
            ServerDied: a process has died meanwhile.
        """
        actors = [self._coordinator, *self._ranks]
        names = [COORDINATOR, *(f"rank {n}" for n in range(len(self._ranks)))]
        timeout = self._timeouts.start
        try:
            pids = ray.get([actor.pid.remote() for actor in actors], timeout=timeout)
            self._processes = self._cluster.watch(
                dict(zip(names, pids, strict=True)), dict(zip(names, actors, strict=True))
            )
            machines = ray.get([rank.machine.remote() for rank in self._ranks], timeout=timeout)
            started: list[RankStarted] = ray.get(
                [
                    rank.start.remote(machines.count(machine))
                    for rank, machine in zip(self._ranks, machines, strict=True)
                ],
                timeout=timeout,
            )
            if len({rank.checkpoint for rank in started}) > 1:
                raise ServerDied("rank", f"the trainer ranks see different checkpoints: {_checkpoints(started)}")
            ray.get(self._coordinator.start.remote(self._ranks, started, pids[1:], _together(started)), timeout=timeout)
        except RayActorError as error:
            raise self._death(error) from error
        except GetTimeoutError as error:
            self._check()
            raise EngineError(
                f"the server did not start within {timeout:g} s ([timeouts] start): raise it where a checkpoint takes longer "
                "to load, or the cluster is slow"
            ) from error
        except RayError as error:
            self._check()
            _log.error("the server did not start", exc_info=error)
            cause = getattr(error, "cause", None)
            failure = DiskFull if is_full(cause) else EngineError
            raise failure(f"the server did not start: {cause or error}") from error
        self._training = [rank.train.remote(started[0].meeting) for rank in self._ranks]
        self._heard = time.monotonic()
        return tuple(dict.fromkeys(w for rank in started for w in rank.warnings))

    def trained(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds; return True when training has ended on every rank."""
        done, _ = ray.wait(self._training, num_returns=len(self._training), timeout=timeout)
        self._check()
        if len(done) < len(self._training):
            return False
        self._get(done)
        return True

    def status(self) -> ServerStatus | None:
        """Return the state of the server; None when it takes too long to answer this time.

        Raises:
            ServerDied: a process has died, or the ranks hear nothing of each other any more.
        """
        answers = self._ask([self._coordinator.status.remote(), *(rank.status.remote() for rank in self._ranks)])
        if answers is None:
            return None
        (coordinator, error), *ranks = answers
        lost = network_lost(ranks, self._silence)
        if lost and self._seemed_lost:  # once alone may be the first answer after all of them were suspended
            raise ServerDied("rank", lost)
        self._seemed_lost = bool(lost)
        return ServerStatus(ranks, coordinator, error)

    def results(self) -> ServerResults:
        """Return what the server says once training has ended; nothing is handed out any more.

        Raises:
            ServerDied: the ranks have lost each other, or a process has died.
        """
        ranks: list[RankStatus] = self._get([rank.status.remote() for rank in self._ranks])
        if lost := peers_lost(ranks):
            raise ServerDied("rank", lost)
        self._coordinator.stop.remote()
        unique, arrived = 0, Counter[int]()
        for total, by_simulation in self._get([rank.unique.remote() for rank in self._ranks]):
            unique += total
            arrived.update(by_simulation)
        ((coordinator, error),) = self._get([self._coordinator.results.remote(dict(arrived))])
        return ServerResults(StudyResults(ranks, unique, coordinator), error)

    def worker_exited(self, pid: int, text: str) -> None:
        """Note that a worker process on this machine has ended."""
        self._coordinator.worker_exited.remote(socket.gethostname(), pid, text)

    def stop(self, reason: str) -> None:
        """End training with a checkpoint. Returns at once."""
        self._coordinator.stop.remote()
        for rank in self._ranks:
            rank.stop.remote(reason)

    def close(self) -> None:
        """Let clients have their last answers, and close the sockets."""
        self._get([self._coordinator.close.remote()])
        self._get([rank.close.remote() for rank in self._ranks])

    def end(self) -> None:
        """Kill what is left: from then on nothing of this incarnation can write into the run directory."""
        self._processes.kill()
        self._processes.close()
        if not self._cluster.died():
            for actor in (self._coordinator, *self._ranks):
                ray.kill(actor)  # so that Ray frees their places, also where we do not know the process

    def _get(self, references: list[Any]) -> list[Any]:
        while (answers := self._ask(references)) is None:
            pass
        return answers

    def _ask(self, references: list[Any]) -> list[Any] | None:
        """Return their answers; None when one is late, which may go on for `server_timeout` seconds."""
        try:
            answers: list[Any] = ray.get(references, timeout=self._timeouts.answer)
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
        """Ask the kernel which process has died; Ray may report a death a moment before it happens."""
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


def peers_lost(ranks: Sequence[RankStatus]) -> str:
    """Decide whether training has ended because the ranks lost each other, and not at the study's end.

    Where a rank has failed, its own error is the cause. Where rank 0 has ended well, the model and the last checkpoint
    are written.

    Args:
        ranks: the trainer ranks at their end, rank 0 first.

    Returns:
        What has happened; "" where training has ended otherwise.
    """
    if not ranks[0].lost or any(rank.error for rank in ranks):
        return ""
    return f"the trainer ranks have lost the connection between them ({ranks[0].lost})"


def network_lost(ranks: Sequence[RankStatus], silence: float) -> str:
    """Decide whether the ranks hear nothing of each other, though all of them live and no connection was closed.

    A call in which all ranks take part lasts until the last of them makes it. Where all have made it and it does not
    end, nothing gets through between them. TCP would notice that after a quarter of an hour, or never.

    Args:
        ranks: the trainer ranks.
        silence: seconds after which that is so.

    Returns:
        What has happened; "" where the ranks hear of each other.
    """
    waited = min(rank.waiting for rank in ranks)
    if waited <= silence:
        return ""
    return (
        f"the trainer ranks have lost the connection between them (each has waited for the others for {waited:.0f} s)"
    )


def _checkpoints(started: Sequence[RankStarted]) -> str:
    return ", ".join(f"rank {n} number {rank.checkpoint}" for n, rank in enumerate(started))


def _together(started: Sequence[RankStarted]) -> RestoredState | None:
    """Put together what a checkpoint holds for the coordinator, with what has arrived at all ranks."""
    restored = [rank.restored for rank in started if rank.restored is not None]
    if not restored:
        return None
    arrived: Counter[int] = Counter()
    for state in restored:
        arrived.update(state.arrived)
    return replace(restored[0], arrived=arrived)
