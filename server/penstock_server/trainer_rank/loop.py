"""The training loop of one rank: from a supply of samples to a trained, validated, checkpointed and exported model.

Several ranks train one model: they step, validate and write checkpoints together (`training.RankGroup`,
`common_step`), each on its own samples. A `SampleSupply` brings the samples from clients (`streamed`) or from a
recording (`recorded`).
"""

from __future__ import annotations

import time
from typing import Any

from penstock_server.checkpoint import check_part
from penstock_server.study import Batch, study_state
from penstock_server.surrogate.export import ExportError
from penstock_server.trainer_rank.checkpoints import Checkpoints
from penstock_server.trainer_rank.common_step import CommonStep
from penstock_server.trainer_rank.context import RankContext
from penstock_server.trainer_rank.metrics_log import MetricsLog
from penstock_server.trainer_rank.parts import TrainingParts
from penstock_server.trainer_rank.pictures import Pictures
from penstock_server.trainer_rank.restore import export_trained, restore_rank
from penstock_server.trainer_rank.sample_source import SampleSupply
from penstock_server.trainer_rank.shares import batch_share
from penstock_server.trainer_rank.status import RankStatus, set_gauges, status_of_training, totals_of_ranks
from penstock_server.validation import ValidationResult, evaluate

LOG_SECONDS = 1.0  # between two lines of metrics.jsonl


class TrainingLoop:
    """Trains, validates, logs and writes checkpoints. Made from a checkpoint where the rank has one to continue from.

    Either `train` does all of it, or, on a rank that is alone, the caller draws batches, gives them to `train_batch`
    and calls `conclude`.

    Args:
        context: the rank.
        parts: what is trained; as new.
        supply: where samples come from; as new.

    Raises:
        PenstockError: when the checkpoint belongs to other samples, another model, optimizer or buffer.
    """

    def __init__(self, context: RankContext, parts: TrainingParts, supply: SampleSupply) -> None:
        self.parts = parts
        self._context, self._supply, self._source = context, supply, supply.source
        self._training, self._group, self._metrics = context.study.training, context.group, context.metrics
        restore_rank(context, parts, supply)
        self._log = MetricsLog(context.directory, append=context.restore is not None) if context.rank == 0 else None
        self._log_due = time.monotonic()
        self._checkpoints = Checkpoints(context)
        self._pictures = Pictures(context, parts)
        self._last_validation: tuple[int, ValidationResult] | None = None  # at which batch, and its result

    @property
    def batches(self) -> int:
        """Training steps since the study began."""
        return self.parts.trainer.batches

    def train(self) -> None:
        """Train until the study's end, all ranks together; then conclude.

        Raises:
            PeersLost: when another rank has gone; what was trained since the last checkpoint is lost.
        """
        group, normaliser = self._group, self.parts.normaliser
        group.broadcast(self.parts.trainer.shared_tensors())
        steps = CommonStep(
            group,
            self._source,
            batch_share(self._context.study, self._context.rank),
            ending=lambda: bool(self._context.over),
            log_due=self._log_is_due,
            checkpoint_due=self._checkpoints.due,
            rows_seen=lambda: normaliser.rows_seen,
        )
        while (agreed := steps.next()) is not None:
            if not group.alone and normaliser.is_outdated(agreed.rows_seen):
                normaliser.share([rows[0] for rows in group.gather(normaliser.statistics()[None])])
            self._step(agreed.batch)
            if agreed.log:
                self._write_log()
            if agreed.checkpoint:
                self._write_checkpoint()
        drained = self._source.drained
        self._context.finish(self._supply.exhausted if drained else "another trainer rank has ended training")
        self.conclude()

    def train_batch(self, batch: Batch) -> None:
        """Train on one batch on a rank that is alone; then log and write a checkpoint where they are due.

        Args:
            batch: raw samples.
        """
        self._step(batch)
        if self._log_is_due():
            self._write_log()
        if self._checkpoints.due():
            self._write_checkpoint()

    def conclude(self) -> None:
        """Write the last log line, checkpoint, validation and pictures, and export the model."""
        self._supply.before_conclusion()
        self._source.close()
        self._write_log()
        # Before the last validation, which updates the normalisation earlier than training would have.
        self._write_checkpoint()
        if self._last_validation is None or self._last_validation[0] != self.batches:
            self._validate()
        if self._context.rank == 0:
            self._pictures.conclude(self._last_validation[1] if self._last_validation else None)
            self._export()
        self.close()

    def close(self) -> None:
        """Close the logs, also of a study that has failed; a second call does nothing."""
        if self._log is not None:
            self._log.close()

    def stop(self, reason: str) -> None:
        """End training after the current step, whatever it waits for. May be called from any thread.

        Args:
            reason: why, for the report.
        """
        self._context.finish(reason)
        self._source.close()

    def status(self) -> RankStatus:
        """Return the figures of this moment. May be called from any thread."""
        warnings = [*self.parts.trainer.warnings, *self._checkpoints.warnings()]
        if self._log is not None:
            warnings += self._log.warnings()
        return status_of_training(
            self._context,
            self.parts,
            self._source.stats(),
            self._last_validation[1] if self._last_validation else None,
            self._checkpoints.figures(),
            warnings,
        )

    def state(self) -> dict[str, Any]:
        """Return the parts of a checkpoint that this rank writes.

        Raises:
            TrainingDiverged: when the loss is not finite.
        """
        samples = self._supply.state()
        study = {"study": study_state(self._context.study)} if self._context.rank == 0 else {}
        return {**study, **samples, **self.parts.state(self._context.rank, self._source.stats().stall_seconds)}

    def _step(self, batch: Batch | None) -> None:
        """Make one training step; batch: this rank's own, None where it takes part without one."""
        training, clock, trainer = self._training, self.parts.clock, self.parts.trainer
        first = False
        if not clock.running:
            clock.begin(self._source.stats().stall_seconds)
            first = True
        trainer.step(batch)
        if first:  # the optimizer has made its state
            check_part("trainer", trainer.state_dict())
        samples = 0 if batch is None else len(batch)
        self._metrics.batch_seconds.observe(clock.batch(samples))
        self._metrics.batches.inc()
        self._metrics.presentations.inc(samples)
        if trainer.batches % training.validate_every == 0:
            self._validate()
            target = training.target_error
            if target is not None and self._last_validation and self._last_validation[1].relative_l2 <= target:
                self._context.finish("target error reached")
        if training.max_batches is not None and trainer.batches >= training.max_batches:
            self._context.finish("max_batches reached")
        if self._context.rank == 0 and training.wall_time is not None and clock.wall_seconds() > training.wall_time:
            self._context.finish("wall_time reached")
        self._supply.after_step(trainer.batches)

    def _validate(self) -> None:
        """Evaluate on the held-out time steps that have arrived, all ranks together; not part of training time."""
        parts, group = self.parts, self._group
        with parts.clock.excluded(self._metrics.validation_seconds):
            if not group.sum([len(parts.validation.predictable())])[0]:
                return
            group.broadcast(parts.trainer.model.buffers())
            result = evaluate(parts.validation, parts.trainer, group)
            self._last_validation = (self.batches, result)
            self._metrics.validation_mse.set(result.mse)
            self._metrics.validation_relative_l2.set(result.relative_l2)
            if result.errors.rmse_to_std is not None:
                self._metrics.validation_rmse_to_std.set(result.errors.rmse_to_std)
            if self._log is not None:
                self._log.validation(parts.clock.wall_seconds(), self.batches, result)
            self._pictures.after_validation(result)

    def _log_is_due(self) -> bool:
        return time.monotonic() >= self._log_due

    def _write_log(self) -> None:
        """Set this rank's gauges, and write a line of metrics.jsonl for all ranks together from the same numbers."""
        self._log_due = time.monotonic() + LOG_SECONDS
        stats, clock, trainer = self._source.stats(), self.parts.clock, self.parts.trainer
        rate, loss = clock.recent_samples_per_second(), trainer.last_loss()
        set_gauges(self._metrics, stats, rate, loss, trainer.device)
        totals = totals_of_ranks(self._group, stats, rate)
        if self._log is not None:
            self._log.training(clock, trainer.batches, loss, trainer.learning_rate, totals)

    def _write_checkpoint(self) -> None:
        """Write a checkpoint at this step, all ranks together; not part of training time."""
        with self.parts.clock.excluded(self._metrics.checkpoint_seconds):
            self._checkpoints.write(self.state, self.batches, self._supply.ingest_blocked_seconds)

    def _export(self) -> None:
        validation = self._last_validation[1] if self._last_validation else None
        try:
            export_trained(self._context.study, self.parts.trainer, validation, self._context.directory)
        except ExportError as error:
            self._context.warnings.append(str(error))
        except OSError as error:
            self._context.warnings.append(
                f"the trained model was not exported ({error}): `penstock export` does it later"
            )
