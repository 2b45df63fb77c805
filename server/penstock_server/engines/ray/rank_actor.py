"""The Ray actor of a trainer rank: its data socket, metrics and log, in a process and on a device of its own.

The coordinator's process reads this file, too, when it receives the handles of the ranks. So torch, and what needs it,
is imported where a rank starts.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from penstock_client.imports import without_collection
from penstock_server.engines.ray.nodes import machine
from penstock_server.engines.ray.rank_started import RankStarted
from penstock_server.engines.setup import configure_from_checkpoint
from penstock_server.network import Assignment, RouterLoop, StudyKeys, own_address
from penstock_server.study import Schema, Study
from penstock_server.telemetry import log_this_process

if TYPE_CHECKING:
    from penstock_server.trainer_rank import RankStatus
    from penstock_server.training import MeetingPoint


class RankActor:
    """A trainer rank in a process of its own.

    `start` makes the parts that may fail: Ray reports an exception of a constructor as the death of the actor, without
    its cause. All other methods but `pid` come after it.

    Args:
        study: the study.
        directory: its run directory.
        rank: number of this rank, from 0.
        incarnation: of this server.
        keys: of the study.
        coordinator: handle of the coordinator's actor.
        threads: CPU threads of the training.
        own_cores: cores, by number, that the training threads alone run on; empty for no such restriction.
    """

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
        """Return the id of this process."""
        return os.getpid()

    def machine(self) -> str:
        """Return a name of the machine that this process runs on."""
        return machine()

    def start(self, ranks_here: int) -> RankStarted:
        """Load the checkpoint, where there is one, and open the sockets.

        Args:
            ranks_here: number of trainer ranks on this machine.
        """
        try:
            return self._start(ranks_here)
        except Exception as error:
            self._log.failure(error, "starting")
            raise

    def _start(self, ranks_here: int) -> RankStarted:
        with without_collection():
            from penstock_server.checkpoint import load_latest_if_any
            from penstock_server.trainer_rank import CHECKPOINTS, RankCallbacks, TrainerRank
            from penstock_server.training import MeetingPoint

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
            ranks_here=ranks_here,
        )
        self._loop = RouterLoop(
            f"rank-{self._number}",
            host,
            self._keys,
            self._rank.handle,
            metrics=self._rank.metrics,
            max_message=study.server.max_message,
            on_error=lambda error: self._rank.fail(self._log.failure(error, "ingest")),
            tick=self._rank.tick,
        )
        self._loop.start()
        restored = None if restore is None else configure_from_checkpoint(self._rank, restore)
        if self._number == 0 and not self._rank.context.group.alone:
            self._meeting = MeetingPoint(host, study.training.ranks)
        return RankStarted(
            endpoint=self._loop.endpoint,
            metrics=self._rank.metrics.serve(host),
            meeting=None if self._meeting is None else self._meeting.address,
            checkpoint=None if restore is None else restore.number,
            restored=restored,
            warnings=() if restore is None else restore.skipped,
        )

    def configure(self, schema: Schema) -> None:
        """Make everything whose size depends on the fields."""
        try:
            self._rank.configure(schema)
        except Exception as error:
            self._log.failure(error, "making buffer and model ready")
            raise

    def note_assignments(self, assignments: list[Assignment]) -> None:
        """Note attempts that were assigned or have ended, in this order."""
        for assignment in assignments:
            self._rank.admissions.note(assignment)
            if assignment.over:
                self._loop.post(partial(self._rank.release, assignment))

    def train(self, meeting: tuple[str, int] | None) -> None:
        """Train until the study's end.

        Args:
            meeting: host and port where the ranks find each other; None where there is one rank.
        """
        import torch

        from penstock_server.training import PeersLost

        if self._own_cores:
            # For this thread and those that torch starts from it; receiving stays on the other cores.
            os.sched_setaffinity(0, self._own_cores)
        torch.set_num_threads(self._threads)
        group = self._rank.context.group
        try:
            if meeting is not None:
                group.join(self._meeting or meeting, own_address(self._study.server.host))
            self._rank.train()
        except PeersLost as lost:
            self._rank.lose_peers(str(lost))
        except BaseException as error:
            self._rank.fail(self._log.failure(error))
        finally:
            group.leave()  # the other ranks stop waiting for this one

    def end_production(self) -> None:
        """Note that no time step will arrive any more."""
        self._rank.end_production()
        self._loop.post(self._rank.drop_incomplete)

    def stop(self, reason: str) -> None:
        """End training after the step under way."""
        self._rank.stop(reason)

    def fail(self, error: str) -> None:
        """End training because something in this rank is broken."""
        self._rank.fail(error)

    def status(self) -> RankStatus:
        """Return the state of this rank."""
        return self._rank.status()

    def unique(self) -> tuple[int, dict[int, int]]:
        """Return the number of training samples in the ledger, in all and by simulation."""
        trained = self._rank.ledgers.trained
        return trained.total(), {i: trained.count(i) for i in trained.simulations()}

    def close(self) -> None:
        """Send what is still to be sent and close the socket."""
        self._loop.close()
