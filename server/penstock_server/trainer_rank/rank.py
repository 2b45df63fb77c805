"""One online trainer rank: samples from clients go through ingest and a buffer into its model, until the study's end.

Both online engines use it. In the Ray engine a socket's thread calls `handle` while `train` blocks until the end; the
inline engine calls `handle` and `TrainingLoop.train_batch` itself, in a fixed order.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from penstock_server.buffer import Buffer, DeviceStorage, Reserved, Storage, StorageMaker, available_memory
from penstock_server.checkpoint import Checkpoint
from penstock_server.ingest import Ingest, Ledger, SampleSinks, SimulationIds, allowance, refuse_before_schema
from penstock_server.native import describe
from penstock_server.network import Admissions, Assignment, Frames, Message
from penstock_server.study import Schema, Study
from penstock_server.telemetry import Metrics
from penstock_server.trainer_rank.context import RankContext
from penstock_server.trainer_rank.loop import TrainingLoop
from penstock_server.trainer_rank.mesh_file import add_to_mesh
from penstock_server.trainer_rank.parts import TrainingParts, make_parts
from penstock_server.trainer_rank.shares import batch_share, buffer_share, spare_slots
from penstock_server.trainer_rank.status import RankStatus, status_before_training
from penstock_server.trainer_rank.streamed import Ledgers, StreamedSupply

_log = logging.getLogger("penstock.rank")


@dataclass(frozen=True)
class RankCallbacks:
    """What a rank asks of its engine.

    Attributes:
        put: commits filled slots and returns False when the study is over; None: `Buffer.commit_many`, which blocks
            while there is no room.
        coordinator_state: returns the coordinator's part of a checkpoint; called on rank 0.
        on_static: called with the name of each static field that has arrived.
        on_over: called when training has ended, before the last validation and checkpoint.
    """

    put: Callable[[Reserved], bool] | None = None
    coordinator_state: Callable[[], dict[str, Any]] = dict
    on_static: Callable[[str], None] = lambda _name: None
    on_over: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class StreamTraining:
    """The parts of an online rank that exist once the fields are known.

    Attributes:
        buffer: holds the training samples.
        ingest: fills the buffer.
        supply: gives the buffer's samples to the loop.
        loop: trains.
    """

    buffer: Buffer
    ingest: Ingest
    supply: StreamedSupply
    loop: TrainingLoop


class TrainerRank:
    """A trainer rank whose samples come from clients.

    Args:
        study: the whole study.
        directory: its run directory.
        rank: number of the rank, from 0.
        incarnation: number of this run of the server; messages of another one are refused.
        callbacks: what the rank asks of its engine.
        restore: checkpoint to continue from; None for a new study.
        ranks_here: number of trainer ranks on this machine; None where all are.

    Attributes:
        context: what the rank has from its start.
        metrics: counters and gauges of this process.
        ledgers: which samples it has received.
        admissions: what the coordinator has assigned.
        training: what it has once the fields are known; None before `configure`.
    """

    def __init__(
        self,
        study: Study,
        directory: Path,
        *,
        rank: int,
        incarnation: int,
        callbacks: RankCallbacks,
        restore: Checkpoint | None = None,
        ranks_here: int | None = None,
    ) -> None:
        self._ranks_here = ranks_here
        self.context = RankContext(study, directory, rank=rank, restore=restore)
        _log.info("%s", describe())
        self.metrics: Metrics = self.context.metrics
        self.ledgers = Ledgers(Ledger(), Ledger())
        self.admissions = Admissions()
        self.training: StreamTraining | None = None
        self._incarnation, self._callbacks = incarnation, callbacks
        solver = study.solver
        self._ids = SimulationIds(solver.simulations, solver.validation_simulations, solver.redraws)
        self._static: dict[str, NDArray[np.float64]] = {}
        self._production_ended = False
        self._ready = threading.Event()  # set once there is something to train on, or there will be nothing

    @property
    def over(self) -> str:
        """Why training has ended; "" while it goes on."""
        return self.context.over

    @property
    def simulations(self) -> int:
        """Number of simulation ids: to train on, held out, and replacements of failed ones."""
        return self._ids.total

    def configure(self, schema: Schema) -> None:
        """Make buffer, model and loop, and let `train` begin. Called once, before any client may stream.

        Args:
            schema: the fields.

        Raises:
            PenstockError: when the study asks for a model, loss, optimizer or device that cannot be made.
            ValueError: when the buffer does not fit in memory, or the checkpoint belongs to another study.
        """
        parts = make_parts(self.context, schema)
        buffer = self._make_buffer(parts)
        ingest = self._make_ingest(parts, buffer)
        callbacks = self._callbacks
        supply = StreamedSupply(
            self.context,
            buffer,
            ingest,
            self.ledgers,
            coordinator_state=callbacks.coordinator_state,
            on_over=callbacks.on_over,
        )
        self.training = StreamTraining(buffer, ingest, supply, TrainingLoop(self.context, parts, supply))
        if self._production_ended:
            self.end_production()
        self._ready.set()

    def handle(self, peer: bytes, frames: Frames, now: float, worker: str = "") -> list[Message]:
        """Deal with one message of the data socket; see `Ingest.handle`.

        Args:
            peer: routing id of the connection.
            frames: of the message.
            now: time.monotonic().
            worker: name of the key with which the sender is connected.

        Returns:
            The messages to send.
        """
        if self.training is None:
            return refuse_before_schema(peer, self._incarnation, self.metrics)
        return self.training.ingest.handle(peer, frames, now, worker)

    def release(self, assignment: Assignment) -> list[Message]:
        """Give back what is held for an attempt that has ended; called on the thread of `handle`.

        Args:
            assignment: the attempt.

        Returns:
            No message.
        """
        if self.training is not None:
            self.training.ingest.release(assignment)
        return []

    def tick(self, _now: float) -> list[Message]:
        """Give back what is held for clients that have gone; called about once a second on the thread of `handle`.

        Returns:
            No message.
        """
        if self.training is not None:
            self.training.ingest.tick()
        return []

    def arrived(self, simulation: int) -> int:
        """Return how many samples of a training simulation, or time steps of a held-out one, have arrived here.

        Args:
            simulation: its id.
        """
        held_out = simulation in self._ids.held_out_ids
        return (self.ledgers.validated if held_out else self.ledgers.trained).count(simulation)

    def train(self) -> None:
        """Wait until the fields are known, and train until the study's end.

        Raises:
            PeersLost: when another rank has gone; what was trained since the last checkpoint is lost.
        """
        self._ready.wait()
        # Production may end, or the study be stopped, while some ranks know the fields and others do not yet.
        training = self.training
        if self.context.group.sum([training is None])[0]:
            self.context.finish("production ended")
            self._callbacks.on_over()
        else:
            assert training is not None  # the sum says so
            training.loop.train()

    def conclude(self) -> None:
        """End the study on this rank, on one that is alone; `train` includes it."""
        if self.training is None:
            self._callbacks.on_over()
        else:
            self.training.loop.conclude()

    def end_production(self) -> None:
        """Let training end once the samples in the buffer are trained on: no time step will come any more."""
        self._production_ended = True
        if self.training is not None:
            self.training.supply.end_production(self.training.loop.batches)
        else:
            self._ready.set()  # no client has ever streamed: there is nothing to train on

    def drop_incomplete(self) -> list[Message]:
        """Drop the incomplete time steps of failed simulations; called after production, on the thread of `handle`.

        Returns:
            No message.
        """
        if self.training is not None:
            self.training.ingest.give_up_incomplete()
        return []

    def stop(self, reason: str) -> None:
        """End training after the current step, whatever it waits for. May be called from any thread.

        Args:
            reason: why, for the report.
        """
        self.context.finish(reason)
        self._ready.set()
        if self.training is not None:
            self.training.loop.stop(reason)

    def lose_peers(self, reason: str) -> None:
        """End training because another rank has gone; the engine restarts the server from the last checkpoint.

        Args:
            reason: what has happened.
        """
        self.context.lose_peers(reason)
        self.stop(reason)

    def fail(self, error: str) -> None:
        """End training because of an error. May be called from any thread.

        Args:
            error: for the report.
        """
        self.context.fail(error)
        self.stop("failed")

    def status(self) -> RankStatus:
        """Return the figures of this moment. May be called from any thread."""
        return status_before_training(self.context) if self.training is None else self.training.loop.status()

    def _make_buffer(self, parts: TrainingParts) -> Buffer:
        study, rank = self.context.study, self.context.rank
        share = buffer_share(study, parts.schema.spec, self._ranks_here)
        return Buffer(
            parts.schema.spec,
            policy=study.buffer.policy,
            capacity=share.capacity,
            watermark=share.watermark,
            presentations_per_sample=study.buffer.presentations_per_sample,
            batch_size=batch_share(study, rank),
            seed=study.study.seed + 1000 * rank,
            spare=spare_slots(parts.schema.spec),
            storage=self._storage(parts.trainer.device),
        )

    def _storage(self, device: torch.device) -> StorageMaker:
        if self.context.study.buffer.storage == "device":
            return partial(DeviceStorage, device=device)
        return partial(Storage, pin=device.type == "cuda")

    def _make_ingest(self, parts: TrainingParts, buffer: Buffer) -> Ingest:
        study = self.context.study
        # The buffer takes its memory as samples come.
        spare = available_memory() // (self._ranks_here or study.training.ranks) - buffer.capacity * buffer.spec.bytes
        return Ingest(
            parts.schema,
            study.samples,
            self._ids,
            SampleSinks(
                buffer=buffer,
                put=self._callbacks.put or (lambda slots: buffer.commit_many(slots) == len(slots)),
                validation=parts.validation,
                statistics=parts.normaliser.update,
                moments=parts.normaliser.merge,
                trained=self.ledgers.trained,
                validated=self.ledgers.validated,
                on_static=self._save_static,
                on_steps=parts.fingerprints.add_steps,
            ),
            incarnation=self._incarnation,
            credit=study.buffer.credit,
            metrics=self.metrics,
            admissions=self.admissions,
            limit=allowance(study, parts.schema, max(0, spare)),
            shared_memory=study.server.shared_memory,
        )

    def _save_static(self, name: str, values: NDArray[np.float64]) -> None:
        self._static[name] = values
        try:
            add_to_mesh(self.context.directory, self._static)
        except OSError as error:  # only pictures need the file
            self.context.events.write("mesh_lost", field=name, message=str(error))
            self.context.warnings.append(f"mesh.h5: {name} could not be written ({error})")
        self._callbacks.on_static(name)
