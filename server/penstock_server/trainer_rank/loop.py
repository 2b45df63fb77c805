"""The training loop of one rank: from a source of samples to a trained, validated, checkpointed and exported model.

Several ranks train one model: they step, validate and write checkpoints together (`rank_group`, `common_step`), each on samples of its own.
Where the samples come from is another's business: `rank.TrainerRank` takes them from clients, `offline_engine.OfflineEngine` from a
recording.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from penstock_client.reasons import Reason
from penstock_server.buffer import BufferStats
from penstock_server.checkpoint import Checkpoint
from penstock_server.study import Batch, Schema, Study
from penstock_server.surrogate.export import ExportError
from penstock_server.telemetry import EventLog, Metrics
from penstock_server.trainer_rank.checkpoints import Checkpoints
from penstock_server.trainer_rank.clock import TrainingClock
from penstock_server.trainer_rank.common_step import CommonStep
from penstock_server.trainer_rank.metrics_log import MetricsLog
from penstock_server.trainer_rank.redistribution import Part, parts_of
from penstock_server.trainer_rank.restore import CHECKPOINTS, export_trained
from penstock_server.trainer_rank.sample_source import SampleSource
from penstock_server.trainer_rank.shares import Share, share_of
from penstock_server.trainer_rank.status import RankStatus
from penstock_server.training import Normaliser, PeersLost, RankGroup, Trainer
from penstock_server.validation import ValidationResult, ValidationStore, evaluate, take_snapshots, write_snapshots

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
        self.group = RankGroup(rank, study.training.ranks)
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
        self._checkpoints = Checkpoints(
            directory / CHECKPOINTS,
            self.group,
            first=0 if restore is None else restore.number + 1,
            every=study.training.checkpoint_every,
            kept=study.training.checkpoints_kept,
            events=self.events,
            metrics=self.metrics,
        )
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
            spec,
            study.model,
            study.training,
            self.normaliser,
            device=study.training.device,
            seed=study.study.seed,
            gradient_average=None if self.group.alone else self.group.average,
        )
        if self.rank:  # the same weights, and other random numbers
            torch.manual_seed(study.study.seed + self.rank)
        self.share: Share = share_of(study, spec, self.rank)
        self.validation = ValidationStore(spec)
        self.clock = TrainingClock()

    def load(self, source: SampleSource) -> None:
        """Go on from the checkpoint, where there is one."""
        if self.restore is not None:
            study = self.study
            ranks, seed = study.training.ranks, study.study.seed
            part = parts_of(self.restore, self.rank, ranks, self.schema.spec, seed)
            self.load_parts(part, source)
            self.load_counts(part("counts"))
            self.metrics.presentations.inc(source.stats().presentations)

    def begin(self, source: SampleSource) -> None:
        """Let `train` begin to draw from this source."""
        self._log = MetricsLog(self.directory, append=self.restore is not None) if self.rank == 0 else None
        self._checkpoints.wait_anew()
        self._log_due = time.monotonic()
        self.source = source
        self._ready.set()

    # Training ------------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Train until the study's end; then validate once more and write a checkpoint.

        Where another rank is lost, training ends at once: what has been done since the last checkpoint is lost with it.
        """
        self._ready.wait()
        try:
            if self.source is not None:
                self._train_together(self.source)
            self.conclude()
        except PeersLost as lost:
            self.stop(str(lost))

    def _train_together(self, source: SampleSource) -> None:
        self.group.broadcast(self.trainer.shared_tensors())
        steps = CommonStep(
            self.group,
            source,
            self.share.batch_size,
            over=lambda: bool(self._over),
            log_due=self._log_is_due,
            checkpoint_due=self._checkpoints.due,
            samples_seen=lambda: self.normaliser.samples_seen,
        )
        while (agreed := steps.next()) is not None:
            if not self.group.alone and self.normaliser.is_outdated(agreed.samples_seen):
                self.normaliser.share([rows[0] for rows in self.group.gather(self.normaliser.statistics()[None])])
            self.step(agreed.batch)
            if agreed.log:
                self.log()
            if agreed.checkpoint:
                self.checkpoint()
        self.finish(self._exhausted if source.drained else "another trainer rank has ended training")

    def train_batch(self, batch: Batch) -> None:
        """One training step of a rank that is alone, and what is due after it."""
        self.step(batch)
        if self._log_is_due():
            self.log()
        if self._checkpoints.due():
            self.checkpoint()

    def step(self, batch: Batch | None) -> None:
        """One training step. batch: this rank's own; None where it takes part without."""
        assert self.source is not None
        training = self.study.training
        if not self.clock.running:
            self.clock.begin(self.source.stats().stall_seconds)
        self.trainer.step(batch)
        samples = 0 if batch is None else len(batch)
        self.clock.batch(samples)
        self.metrics.batches.inc()
        self.metrics.presentations.inc(samples)
        if self.trainer.batches % training.validate_every == 0:
            self.validate()
            target = training.target_error
            if target is not None and self._last_validation and self._last_validation[1].relative_l2 <= target:
                self.finish("target error reached")
        if training.max_batches is not None and self.trainer.batches >= training.max_batches:
            self.finish("max_batches reached")
        if self.rank == 0 and training.wall_time is not None and self.clock.wall_seconds() > training.wall_time:
            self.finish("wall_time reached")

    def _log_is_due(self) -> bool:
        return time.monotonic() >= self._log_due

    def validate(self) -> None:
        """Evaluate on what has arrived of the held-out simulations, all ranks together; off the training clock."""
        with self.clock.aside(self.metrics.validation_seconds):
            if not self.group.sum([len(self.validation.predictable())])[0]:
                return
            self.group.broadcast(self.trainer.model.buffers())
            result = evaluate(self.validation, self.trainer, self.group)
            self._last_validation = (self.trainer.batches, result)
            self.metrics.validation_mse.set(result.mse)
            self.metrics.validation_relative_l2.set(result.relative_l2)
            if self._log is not None:
                self._log.validation(self.clock.wall_seconds(), self.trainer.batches, result)

    def log(self) -> None:
        """Set the gauges, of this rank, and write a line of metrics.jsonl, of all ranks together, from the same numbers."""
        if self.source is None:
            return
        self._log_due = time.monotonic() + LOG_SECONDS
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
        stats, rate = self._of_all_ranks(stats, rate)
        if self._log is not None:
            self._log.training(self.clock, self.trainer.batches, loss, stats, self.trainer.learning_rate, rate)

    def _of_all_ranks(self, stats: BufferStats, rate: float) -> tuple[BufferStats, float]:
        """Sums over the ranks; of the time that training has waited, the mean."""
        population, unseen, received, presentations, blocked, stalled, ended, rate = self.group.sum(
            [
                stats.population,
                stats.unseen,
                stats.received,
                stats.presentations,
                stats.put_blocked_seconds,
                stats.stall_seconds / self.group.size,
                stats.production_ended,
                rate,
            ]
        ).tolist()
        together = replace(
            stats,
            population=int(population),
            unseen=int(unseen),
            received=int(received),
            presentations=int(presentations),
            put_blocked_seconds=blocked,
            stall_seconds=stalled,
            production_ended=ended == self.group.size,
        )
        return together, rate

    def checkpoint(self) -> None:
        """Write one whole checkpoint at this step, all ranks together; off the training clock."""
        source = self.source
        assert source is not None
        with self.clock.aside(self.metrics.checkpoint_seconds):
            self._checkpoints.write(self.state, self.trainer.batches, lambda: source.stats().snapshot_seconds)

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
            checkpoints=self._checkpoints.figures(),
            warnings=self._all_warnings(),
        )

    def _all_warnings(self) -> tuple[str, ...]:
        more = self._checkpoints.warnings()
        if self._log is not None:
            more += self._log.warnings()
        return (*self._warnings, *more, *self.events.warnings())

    # Checkpoints ---------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """The parts of a checkpoint that this rank writes."""
        assert self.source is not None
        trainer = self.trainer.state_dict()
        if self.rank == 0:
            common = {"schema": self.schema.state_dict(), "trainer": trainer}
        else:
            common = {"random": {name: trainer[name] for name in ("torch_rng", "cuda_rng")}}
        return {
            **common,
            "buffer": self.source.state_dict(),
            "normaliser": self.normaliser.state_dict(),
            "validation": self.validation.state_dict(),
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

    def load_parts(self, part: Part, source: SampleSource) -> None:
        """Take over this rank's parts of a checkpoint, the source's among them."""
        source.load_state_dict(part("buffer"))
        self.normaliser.load_state_dict(part("normaliser"))
        self.validation.load_state_dict(part("validation"))
        self.trainer.load_state_dict(part("trainer"))
        self.clock.load_state_dict(part("clock"))

    def load_counts(self, counts: dict[str, Any]) -> None:
        """Take over what a checkpoint has counted, once all else has been taken over."""
        self.metrics.samples_received.inc(counts["received"])
        self.metrics.duplicates_dropped.inc(counts["duplicates"])
        self.metrics.bytes_received.inc(counts["bytes"])
        self.metrics.incomplete_dropped.inc(counts["incomplete"])
        for reason, number in counts["refused"].items():
            self.metrics.refused(Reason[reason.upper()], number)
        self.metrics.batches.inc(self.trainer.batches)
