"""The training loop of one rank: from a source of samples to a trained, validated, checkpointed and exported model.

Where the samples come from is another's business: `rank.TrainerRank` takes them from clients, `offline_engine.OfflineEngine` from a
recording.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from penstock_client.reasons import Reason
from penstock_server.agreement import Schema
from penstock_server.checkpoint import Checkpoint, write_checkpoint
from penstock_server.clock import TrainingClock
from penstock_server.config import Study
from penstock_server.events import EventLog
from penstock_server.export import ExportError
from penstock_server.metrics import Metrics
from penstock_server.metrics_log import MetricsLog
from penstock_server.normalisation import Normaliser
from penstock_server.rank_status import CheckpointFigures, RankStatus
from penstock_server.restore import CHECKPOINTS, export_trained
from penstock_server.sample_source import SampleSource
from penstock_server.schema import Batch
from penstock_server.snapshots import take_snapshots, write_snapshots
from penstock_server.trainer import Trainer
from penstock_server.validation import ValidationResult, ValidationStore

LOG_SECONDS = 1.0  # between two lines of metrics.jsonl


class TrainingLoop:
    """Composes normaliser, trainer, validation, clock, log and checkpoints of one rank; call `set_up`, `load`, `begin`, then `train`.

    Args:
        study: the whole study. directory: its run directory. restore: the checkpoint to go on from.
        exhausted: why training has ended when its source has no batch left.
    """

    def __init__(
        self,
        study: Study,
        directory: Path,
        *,
        rank: int = 0,
        restore: Checkpoint | None = None,
        exhausted: str = "production ended",
    ) -> None:
        self.study, self.directory, self.rank = study, directory, rank
        self.metrics = Metrics(f"rank-{rank}", study.study.name)
        self.restore = restore
        self.source: SampleSource | None = None
        self._exhausted = exhausted
        self._log: MetricsLog | None = None
        self._ready = threading.Event()  # set once there is something to draw from, or the study ends without
        self._over = ""
        self._error = ""
        self.events = EventLog(directory / "events.jsonl")
        self._warnings: list[str] = list(() if restore is None else restore.skipped)
        self._checkpoint_figures = CheckpointFigures()
        self._checkpoint_fault = ""
        self._checkpoints = 0 if restore is None else restore.number + 1
        self._last_validation: tuple[int, ValidationResult] | None = None

    # Setting up ----------------------------------------------------------------------------------------------------

    def set_up(self, schema: Schema) -> None:
        """Make everything whose size depends on the fields.

        Raises PenstockError subclasses and ValueError where the study asks for what cannot be: memory, model, optimizer.
        """
        study, spec = self.study, schema.spec
        self.schema = schema
        self.normaliser = Normaliser(spec, inputs=study.normalisation.inputs, targets=study.normalisation.targets)
        self.trainer = Trainer(
            spec, study.model, study.training, self.normaliser, device=study.training.device, seed=study.study.seed
        )
        self.validation = ValidationStore(spec)
        self.clock = TrainingClock()

    def load(self, source: SampleSource) -> None:
        """Go on from the checkpoint, where there is one."""
        if self.restore is not None:
            self.load_state(self.restore.parts, source)

    def begin(self, source: SampleSource) -> None:
        """Let `train` begin to draw from this source."""
        self._log = MetricsLog(self.directory, append=self.restore is not None) if self.rank == 0 else None
        self._checkpoint_due = time.monotonic() + self.study.training.checkpoint_every
        self._log_due = time.monotonic()
        self.source = source
        self._ready.set()

    # Training ------------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Train until the study's end; then validate once more and write a checkpoint."""
        self._ready.wait()
        while not self._over:
            assert self.source is not None
            batch = self.source.get(self.study.training.batch_size)
            if batch is None:
                self.finish(self._exhausted)
                break
            self.train_batch(batch)
        self.conclude()

    def train_batch(self, batch: Batch) -> None:
        """One training step, and what is due after it."""
        assert self.source is not None
        training = self.study.training
        if not self.clock.running:
            self.clock.begin(self.source.stats().stall_seconds)
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
        with self.clock.aside(self.metrics.validation_seconds):
            if not self.validation.predictable():
                return
            result = self.validation.evaluate(self.trainer)
            self._last_validation = (self.trainer.batches, result)
            self.metrics.validation_mse.set(result.mse)
            self.metrics.validation_relative_l2.set(result.relative_l2)
            if self._log is not None:
                self._log.validation(self.clock.wall_seconds(), self.trainer.batches, result)

    def log(self) -> None:
        """Set the gauges and write a line of metrics.jsonl from the same numbers."""
        if self.source is None:
            return
        stats = self.source.stats()
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
        """Write one whole checkpoint at this step; off the training clock. One that the disk does not take is counted and given up: the
        one before stays, and the next is tried when it is due."""
        assert self.source is not None
        figures, begun = self._checkpoint_figures, time.monotonic()
        locked = self.source.stats().snapshot_seconds
        with self.clock.aside(self.metrics.checkpoint_seconds):
            try:
                write_checkpoint(
                    self.directory / CHECKPOINTS,
                    self._checkpoints,
                    self.state(),
                    keep=self.study.training.checkpoints_kept,
                )
            except OSError as error:
                figures.failed += 1
                self.metrics.checkpoints_failed.inc()
                self._checkpoint_fault = error.strerror or str(error)
                self.events.write("checkpoint_failed", number=self._checkpoints, message=self._checkpoint_fault)
            else:
                figures.count += 1
                self.metrics.checkpoints.inc()
                seconds = round(time.monotonic() - begun, 3)
                self.events.write("checkpoint", number=self._checkpoints, batches=self.trainer.batches, seconds=seconds)
                self._checkpoints += 1
        figures.seconds += time.monotonic() - begun
        blocked = self.source.stats().snapshot_seconds - locked
        figures.ingest_blocked_seconds += blocked
        self.metrics.ingest_blocked_seconds.inc(blocked)

    def conclude(self) -> None:
        """After the last batch: a last validation, log line and checkpoint, and pictures' worth of held-out samples."""
        if self.source is None:
            return
        self.source.close()
        self.log()
        # Before a validation off the schedule, which brings the normalisation up to date earlier than training would have.
        self.checkpoint()
        if self._last_validation is None or self._last_validation[0] != self.trainer.batches:
            self.validate()
        if self.rank == 0:
            try:
                if len(self.validation):
                    pictures = take_snapshots(self.validation, self.trainer)
                    write_snapshots(self.directory / "validation_snapshots.h5", pictures)
                validation = self._last_validation[1] if self._last_validation else None
                export_trained(self.study, self.trainer, validation, self.directory)
            except ExportError as error:
                self._warnings.append(str(error))
            except OSError as error:
                self._warnings.append(f"the trained model was not exported ({error}): `penstock export` does it later")
        if self._log is not None:
            self._log.close()

    # Being told ----------------------------------------------------------------------------------------------------

    @property
    def over(self) -> str:
        """Why training has ended; "" while it goes on."""
        return self._over

    def finish(self, reason: str) -> None:
        """Training ends after the step that is under way; the first reason given counts."""
        self._over = self._over or reason

    def stop(self, reason: str) -> None:
        """End training after the step that is under way, whatever it waits for."""
        self.finish(reason)
        self._ready.set()
        if self.source is not None:
            self.source.close()

    def fail(self, error: str) -> None:
        """Something in this rank is broken beyond its own repair."""
        self._error = self._error or error
        self.stop("failed")

    def status(self) -> RankStatus:
        """How this rank stands; safe from any thread."""
        if self.source is None:
            return RankStatus(
                over=self._over, error=self._error, refused=self.metrics.refusals(), warnings=self._all_warnings()
            )
        stats = self.source.stats()
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
            validated=len(self.validation),
            first_step=self.clock.first_step,
            last_step=self.clock.last_step,
            checkpoints=replace(self._checkpoint_figures),
            warnings=self._all_warnings(),
        )

    def _all_warnings(self) -> tuple[str, ...]:
        figures, more = self._checkpoint_figures, list[str]()
        if figures.failed:
            more.append(
                f"{figures.failed} checkpoints could not be written (the last time: {self._checkpoint_fault}); {figures.count} were"
            )
        if self._log is not None:
            more += self._log.warnings()
        return (*self._warnings, *more, *self.events.warnings())

    # Checkpoints ---------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """The parts of a checkpoint."""
        assert self.source is not None
        return {
            "schema": self.schema.state_dict(),
            "buffer": self.source.state_dict(),
            "normaliser": self.normaliser.state_dict(),
            "validation": self.validation.state_dict(),
            "trainer": self.trainer.state_dict(),
            "clock": self.clock.state_dict(self.source.stats().stall_seconds),
            "counts": {
                "received": self.metrics.total("samples_received"),
                "duplicates": self.metrics.total("duplicates_dropped"),
                "bytes": self.metrics.total("received_bytes"),
                "incomplete": self.metrics.total("incomplete_dropped"),
                # What a stopping study turns away is sent again.
                "refused": {reason: n for reason, n in self.metrics.refusals().items() if reason != "study_over"},
            },
        }

    def load_state(self, parts: Mapping[str, Any], source: SampleSource) -> None:
        """Take over the parts of a checkpoint, the source's among them."""
        source.load_state_dict(parts["buffer"])
        self.normaliser.load_state_dict(parts["normaliser"])
        self.validation.load_state_dict(parts["validation"])
        self.trainer.load_state_dict(parts["trainer"])
        self.clock.load_state_dict(parts["clock"])
        self.metrics.samples_received.inc(parts["counts"]["received"])
        self.metrics.duplicates_dropped.inc(parts["counts"]["duplicates"])
        self.metrics.bytes_received.inc(parts["counts"]["bytes"])
        self.metrics.incomplete_dropped.inc(parts["counts"]["incomplete"])
        for reason, number in parts["counts"]["refused"].items():
            self.metrics.refused(Reason[reason.upper()], number)
        self.metrics.batches.inc(self.trainer.batches)
        self.metrics.presentations.inc(source.stats().presentations)
