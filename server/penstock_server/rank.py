"""One trainer rank: what ingest takes goes through its buffer into its model, until the study's end.

The same rank runs in both engines. In a Ray actor, `serve` starts the ingest thread and `train` blocks until the end; the inline engine
calls `handle` and `train_batch` itself, in a fixed order.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from penstock_client.payloads import Refuse
from penstock_client.reasons import Reason
from penstock_client.wire import Header, Kind
from penstock_server.agreement import Schema
from penstock_server.buffer import Buffer, BufferStats, Slot, capacity_in_samples
from penstock_server.checkpoint import Checkpoint, write_checkpoint
from penstock_server.clock import TrainingClock
from penstock_server.config import Study
from penstock_server.export import ExportError
from penstock_server.ingest import Ingest, Message
from penstock_server.ledger import Ledger
from penstock_server.metrics import Metrics
from penstock_server.metrics_log import MetricsLog
from penstock_server.normalisation import Normaliser
from penstock_server.restore import export_trained
from penstock_server.schema import Batch
from penstock_server.snapshots import take_snapshots, write_snapshots
from penstock_server.trainer import Trainer
from penstock_server.validation import ValidationResult, ValidationStore

LOG_SECONDS = 1.0  # between two lines of metrics.jsonl


@dataclass(frozen=True)
class RankStatus:
    """How a trainer rank stands, for the display and the report.

    over: why training has ended, "" while it goes on. error: what it failed of, "" where it did not. buffer is None until the
    fields are known.
    """

    over: str = ""
    error: str = ""
    device: str = "cpu"
    batches: int = 0
    samples_per_second: float = 0.0
    mean_samples_per_second: float = 0.0
    stall_fraction: float = 0.0
    loss: float | None = None
    buffer: BufferStats | None = None
    received: int = 0
    duplicates: int = 0
    incomplete: int = 0
    bytes_received: int = 0
    refused: dict[str, int] | None = None
    validation: ValidationResult | None = None
    validated: int = 0
    warnings: tuple[str, ...] = ()


class TrainerRank:
    """Composes ingest, ledger, buffer, normaliser, trainer and validation of one rank.

    Args:
        study: the whole study. directory: its run directory. held_out: simulation ids from here on are validation simulations;
            simulations: their number, both kinds.
        put: how a filled slot is committed; None: `Buffer.commit`, which blocks.
        coordinator_state: asked for at each checkpoint: what the coordinator must remember.
        on_static: told the name of each static field that has arrived.
    """

    def __init__(
        self,
        study: Study,
        directory: Path,
        *,
        rank: int,
        incarnation: int,
        held_out: int,
        simulations: int,
        put: Callable[[Slot], bool] | None = None,
        coordinator_state: Callable[[], dict[str, Any]] = dict,
        on_static: Callable[[str], None] = lambda _name: None,
        restore: Checkpoint | None = None,
    ) -> None:
        self.study, self.directory, self.rank = study, directory, rank
        self.metrics = Metrics(f"rank-{rank}", study.study.name)
        self.trained = Ledger()
        self.validated = Ledger()
        self._incarnation, self._held_out, self.simulations = incarnation, held_out, simulations
        self._put, self._coordinator_state, self._on_static = put, coordinator_state, on_static
        self._restore = restore
        self._log: MetricsLog | None = None
        self._ready = threading.Event()  # set once the fields are known, or the study ends without them
        self._over = ""
        self._error = ""
        self._warnings: list[str] = []
        self._production_ended = False
        self._checkpoints = 0 if restore is None else restore.number + 1
        self._last_validation: tuple[int, ValidationResult] | None = None
        self.buffer: Buffer | None = None

    # Setting up ----------------------------------------------------------------------------------------------------

    def configure(self, schema: Schema) -> None:
        """Make everything whose size depends on the fields. Called once, before any client may stream.

        Raises PenstockError subclasses and ValueError where the study asks for what cannot be: memory, model, optimizer.
        """
        study, spec = self.study, schema.spec
        self.schema = schema
        training = study.training
        seed = study.study.seed + 1000 * self.rank
        self.normaliser = Normaliser(spec, inputs=study.normalisation.inputs, targets=study.normalisation.targets)
        self.trainer = Trainer(
            spec, study.model, training, self.normaliser, device=training.device, seed=study.study.seed
        )
        buffer = Buffer(
            spec,
            policy=study.buffer.policy,
            capacity=capacity_in_samples(study.buffer.capacity, spec, ranks=study.training.ranks),
            watermark=study.buffer.watermark,
            presentations_per_sample=study.buffer.presentations_per_sample,
            batch_size=training.batch_size,
            seed=seed,
            pin=self.trainer.device.type == "cuda",
        )
        self.validation = ValidationStore(spec)
        self.clock = TrainingClock()
        if self._restore is not None:
            self._load(self._restore.parts, buffer)
        self.ingest = Ingest(
            schema,
            study.samples,
            incarnation=self._incarnation,
            simulations=self.simulations,
            held_out=self._held_out,
            credit=study.buffer.credit,
            buffer=buffer,
            put=self._put or buffer.commit,
            validation=self.validation,
            normaliser=self.normaliser,
            trained=self.trained,
            validated=self.validated,
            metrics=self.metrics,
            on_static=self._save_static,
        )
        self._log = MetricsLog(self.directory, append=self._restore is not None) if self.rank == 0 else None
        self.buffer = buffer
        if self._production_ended:
            self.end_production()
        self._checkpoint_due = time.monotonic() + training.checkpoint_every
        self._log_due = time.monotonic()
        self._ready.set()

    # Data ----------------------------------------------------------------------------------------------------------

    def handle(self, peer: bytes, frames: list[bytes], now: float) -> list[Message]:
        """One message of the data socket; see `Ingest.handle`."""
        if self.buffer is None:
            self.metrics.refused(Reason.NO_BEGIN)
            refuse = Refuse(Reason.NO_BEGIN, "the study's fields are not known yet: ANNOUNCE to the coordinator first")
            return [(peer, [Header(Kind.REFUSE, self._incarnation).pack(), refuse.pack()])]
        return self.ingest.handle(peer, frames, now)

    def _save_static(self, name: str, values: NDArray[np.float64]) -> None:
        with h5py.File(self.directory / "mesh.h5", "a") as file:
            if name not in file:
                file.create_dataset(name, data=values)
        self._on_static(name)

    # Training ------------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Train until the study's end; then validate once more and write a checkpoint."""
        self._ready.wait()
        while not self._over:
            assert self.buffer is not None
            batch = self.buffer.get(self.study.training.batch_size)
            if batch is None:
                self.finish("production ended")
                break
            self.train_batch(batch)
        self.conclude()

    def train_batch(self, batch: Batch) -> None:
        """One training step, and what is due after it."""
        assert self.buffer is not None
        training = self.study.training
        if not self.clock.running:
            self.clock.begin(self.buffer.stats().stall_seconds)
        self.trainer.step(batch)
        self.clock.batch(len(batch))
        self.metrics.batches.inc()
        self.metrics.presentations.inc(len(batch))
        if self.trainer.batches % training.validate_every == 0:
            self.validate()
            target = training.target_error
            if target is not None and self._last_validation and self._last_validation[1].relative_l2 <= target:
                self.finish("target error reached")
        if training.max_batches is not None and self.trainer.batches >= training.max_batches:
            self.finish("max_batches reached")
        if self._production_ended and self.trainer.batches >= training.min_batches:
            self.buffer.drain()
        now = time.monotonic()
        if training.wall_time is not None and self.clock.wall_seconds() > training.wall_time:
            self.finish("wall_time reached")
        if now >= self._log_due:
            self._log_due = now + LOG_SECONDS
            self.log()
        if now >= self._checkpoint_due:
            self.checkpoint()
            self._checkpoint_due = time.monotonic() + training.checkpoint_every

    def validate(self) -> None:
        """Evaluate on what has arrived of the held-out simulations; off the training clock."""
        if not len(self.validation):
            return
        with self.clock.aside(self.metrics.validation_seconds):
            result = self.validation.evaluate(self.trainer)
            self._last_validation = (self.trainer.batches, result)
            self.metrics.validation_mse.set(result.mse)
            self.metrics.validation_relative_l2.set(result.relative_l2)
            if self._log is not None:
                self._log.validation(self.clock.wall_seconds(), self.trainer.batches, result)

    def log(self) -> None:
        """Set the gauges and write a line of metrics.jsonl from the same numbers."""
        if self.buffer is None:
            return
        stats = self.buffer.stats()
        rate = self.clock.recent_samples_per_second()
        loss = self.trainer.last_loss()
        m = self.metrics
        m.buffer_population.set(stats.population)
        m.buffer_unseen.set(stats.unseen)
        m.buffer_capacity.set(stats.capacity)
        m.stall_seconds.set(stats.stall_seconds)
        m.put_blocked_seconds.set(stats.put_blocked_seconds)
        m.samples_per_second.set(rate)
        if loss is not None:
            m.loss.set(loss)
        if self._log is not None:
            self._log.training(self.clock, self.trainer.batches, loss, stats, self.trainer.learning_rate)

    def checkpoint(self) -> None:
        """Write one whole checkpoint at this step; off the training clock."""
        with self.clock.aside(self.metrics.checkpoint_seconds):
            write_checkpoint(self.directory / "checkpoints", self._checkpoints, self._state())
            self._checkpoints += 1

    def conclude(self) -> None:
        """After the last batch: a last validation, log line and checkpoint, and pictures' worth of held-out samples."""
        if self.buffer is None:
            return
        self.buffer.close()
        self.log()
        if self._last_validation is None or self._last_validation[0] != self.trainer.batches:
            self.validate()
        self.checkpoint()
        if self.rank == 0:
            if len(self.validation):
                pictures = take_snapshots(self.validation, self.trainer)
                write_snapshots(self.directory / "validation_snapshots.h5", pictures)
            try:
                export_trained(
                    self.study,
                    self.trainer,
                    self._last_validation[1] if self._last_validation else None,
                    self.directory,
                )
            except ExportError as error:
                self._warnings.append(str(error))
        if self._log is not None:
            self._log.close()

    # Being told ----------------------------------------------------------------------------------------------------

    @property
    def over(self) -> str:
        """Why training has ended; "" while it goes on."""
        return self._over

    def arrived(self, simulation: int) -> int:
        """Samples of a training simulation, or time steps of a held-out one, that have arrived here."""
        return (self.validated if simulation >= self._held_out else self.trained).count(simulation)

    def end_production(self) -> None:
        """No time step will come any more: what the buffer holds is trained on, then training ends."""
        self._production_ended = True
        if self.buffer is None:
            return
        self.buffer.end_production(drain=self.trainer.batches >= self.study.training.min_batches)

    def stop(self, reason: str) -> None:
        """End training after the step that is under way."""
        self.finish(reason)
        self._ready.set()
        if self.buffer is not None:
            self.buffer.close()

    def fail(self, error: str) -> None:
        """Something in this rank is broken beyond its own repair."""
        self._error = self._error or error
        self.stop("failed")

    def status(self) -> RankStatus:
        """How this rank stands; safe from any thread."""
        if self.buffer is None:
            return RankStatus(over=self._over, error=self._error, refused=self.metrics.refusals())
        stats = self.buffer.stats()
        return RankStatus(
            over=self._over,
            error=self._error,
            device=str(self.trainer.device),
            batches=self.trainer.batches,
            samples_per_second=self.clock.recent_samples_per_second(),
            mean_samples_per_second=self.clock.samples_per_second(),
            stall_fraction=self.clock.stall_fraction(stats.stall_seconds),
            loss=self.trainer.last_loss(),
            buffer=stats,
            received=self.metrics.total("samples_received"),
            duplicates=self.metrics.total("duplicates_dropped"),
            incomplete=self.metrics.total("incomplete_dropped"),
            bytes_received=self.metrics.total("received_bytes"),
            refused=self.metrics.refusals(),
            validation=self._last_validation[1] if self._last_validation else None,
            validated=self.validated.total(),
            warnings=tuple(self._warnings),
        )

    def finish(self, reason: str) -> None:
        """Training ends after the step that is under way; the first reason given counts."""
        self._over = self._over or reason

    # Checkpoints ---------------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        assert self.buffer is not None
        return {
            "schema": self.schema.state_dict(),
            "coordinator": self._coordinator_state(),
            # The ledger before the buffer: what ingest adds in between is in the buffer, and `_load` marks it.
            "ledger": {"trained": self.trained.state_dict(), "validated": self.validated.state_dict()},
            "buffer": self.buffer.state_dict(),
            "normaliser": self.normaliser.state_dict(),
            "validation": self.validation.state_dict(),
            "trainer": self.trainer.state_dict(),
            "clock": self.clock.state_dict(self.buffer.stats().stall_seconds),
            "counts": {
                "received": self.metrics.total("samples_received"),
                "duplicates": self.metrics.total("duplicates_dropped"),
                "bytes": self.metrics.total("received_bytes"),
            },
        }

    def _load(self, parts: Mapping[str, Any], buffer: Buffer) -> None:
        self.trained.load_state_dict(parts["ledger"]["trained"])
        self.validated.load_state_dict(parts["ledger"]["validated"])
        buffer.load_state_dict(parts["buffer"])
        for simulation, sample in buffer.identifiers():
            self.trained.mark(simulation, sample)
        self.normaliser.load_state_dict(parts["normaliser"])
        self.validation.load_state_dict(parts["validation"])
        self.trainer.load_state_dict(parts["trainer"])
        self.clock.load_state_dict(parts["clock"])
        self.metrics.samples_received.inc(parts["counts"]["received"])
        self.metrics.duplicates_dropped.inc(parts["counts"]["duplicates"])
        self.metrics.bytes_received.inc(parts["counts"]["bytes"])
        self.metrics.batches.inc(self.trainer.batches)
