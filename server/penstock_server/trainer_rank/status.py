"""The figures of a trainer rank: for the engine and the report, for Prometheus, and for metrics.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from penstock_server.ingest import Fingerprint
from penstock_server.telemetry import Metrics
from penstock_server.trainer_rank.context import RankContext
from penstock_server.trainer_rank.data_warnings import data_warnings
from penstock_server.trainer_rank.parts import TrainingParts
from penstock_server.trainer_rank.sample_source import SourceStats
from penstock_server.training import RankGroup
from penstock_server.validation import ValidationResult


@dataclass
class CheckpointFigures:
    """The checkpoints of this process.

    Attributes:
        count: written.
        failed: given up because they could not be written.
        seconds: time that training waited for them.
        ingest_blocked_seconds: time that arriving samples waited for them.
    """

    count: int = 0
    failed: int = 0
    seconds: float = 0.0
    ingest_blocked_seconds: float = 0.0


@dataclass(frozen=True)
class RankStatus:
    """A trainer rank at one moment, for the display and the report.

    Attributes:
        over: why training has ended; "" while it goes on.
        error: what the rank failed of; "" where it did not.
        lost: how the rank has lost the other ranks; "" where it has not.
        waiting: seconds that its call to the other ranks which is under way has taken; 0 where none is.
        device: torch device of the model.
        batches: training steps since the study began.
        samples_per_second: samples trained on per second of training, over the last seconds.
        mean_samples_per_second: the same since the study began.
        stall_fraction: share of training time spent waiting for samples.
        loss: of the last batch, in normalised units; None before the first.
        buffer: figures of the buffer or recording that batches are drawn from; None until the fields are known.
        received: samples that arrived whole, duplicates included.
        duplicates: samples that had arrived before and were dropped.
        incomplete: time steps dropped because pieces of them never came.
        bytes_received: payload bytes.
        refused: messages refused, by reason.
        validation: result of the last validation; None before the first.
        validated: held-out time steps that have arrived here.
        first_step: time.monotonic() of this process's first training step; None before it.
        last_step: time.monotonic() of this process's last training step; None before the first.
        checkpoints: of this process.
        warnings: for the report.
        fingerprints: of the first simulations, once training has ended.
    """

    over: str = ""
    error: str = ""
    lost: str = ""
    waiting: float = 0.0
    device: str = "cpu"
    batches: int = 0
    samples_per_second: float = 0.0
    mean_samples_per_second: float = 0.0
    stall_fraction: float = 0.0
    loss: float | None = None
    buffer: SourceStats | None = None
    received: int = 0
    duplicates: int = 0
    incomplete: int = 0
    bytes_received: int = 0
    refused: dict[str, int] | None = None
    validation: ValidationResult | None = None
    validated: int = 0
    first_step: float | None = None
    last_step: float | None = None
    checkpoints: CheckpointFigures = field(default_factory=CheckpointFigures)
    warnings: tuple[str, ...] = ()
    fingerprints: Mapping[int, Fingerprint] = field(default_factory=dict)


@dataclass(frozen=True)
class SourceTotals:
    """The figures of all ranks' sources of samples together; meanings as in `SourceStats`.

    Attributes:
        population: sum over the ranks.
        unseen: sum over the ranks.
        received: sum over the ranks.
        presentations: sum over the ranks.
        put_blocked_seconds: sum over the ranks.
        stall_seconds: mean over the ranks.
        production_ended: whether it has ended for all ranks.
        samples_per_second: sum over the ranks of what they trained on lately.
    """

    population: int
    unseen: int
    received: int
    presentations: int
    put_blocked_seconds: float
    stall_seconds: float
    production_ended: bool
    samples_per_second: float


def status_before_training(context: RankContext) -> RankStatus:
    """Return the status of a rank whose fields are not known yet.

    Args:
        context: the rank.
    """
    return RankStatus(
        over=context.over,
        error=context.error,
        lost=context.lost,
        waiting=context.group.waiting_seconds,
        refused=context.metrics.refusals(),
        warnings=(*context.warnings, *context.events.warnings()),
    )


def status_of_training(
    context: RankContext,
    parts: TrainingParts,
    stats: SourceStats,
    validation: ValidationResult | None,
    checkpoints: CheckpointFigures,
    warnings: Sequence[str],
) -> RankStatus:
    """Return the status of a rank that trains, or has trained.

    Args:
        context: the rank.
        parts: what it trains.
        stats: figures of its source of samples.
        validation: result of the last validation; None before the first.
        checkpoints: of this process.
        warnings: beside those of `context`.
    """
    metrics, clock = context.metrics, parts.clock
    return RankStatus(
        over=context.over,
        error=context.error,
        lost=context.lost,
        waiting=context.group.waiting_seconds,
        device=str(parts.trainer.device),
        batches=parts.trainer.batches,
        samples_per_second=clock.recent_samples_per_second(),
        mean_samples_per_second=clock.samples_per_second(),
        stall_fraction=clock.stall_fraction(stats.stall_seconds),
        loss=parts.trainer.last_loss(),
        buffer=stats,
        received=metrics.total("samples_received"),
        duplicates=metrics.total("duplicates_dropped"),
        incomplete=metrics.total("incomplete_dropped"),
        bytes_received=metrics.total("received_bytes"),
        refused=metrics.refusals(),
        validation=validation,
        validated=len(parts.validation),
        first_step=clock.first_step,
        last_step=clock.last_step,
        checkpoints=checkpoints,
        warnings=(*context.warnings, *warnings, *context.events.warnings(), *data_warnings(context, parts.normaliser)),
        fingerprints=parts.fingerprints.simulations if context.over else {},
    )


def set_gauges(
    metrics: Metrics, stats: SourceStats, samples_per_second: float, loss: float | None, device: torch.device
) -> None:
    """Set the Prometheus gauges of one rank.

    Args:
        metrics: of the rank.
        stats: figures of its source of samples.
        samples_per_second: that it trained on lately.
        loss: of its last batch; None before the first.
        device: of its model.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        metrics.device_memory.set(total)
        metrics.device_memory_used.set(total - free)
    metrics.buffer_population.set(stats.population)
    metrics.buffer_unseen.set(stats.unseen)
    metrics.buffer_capacity.set(stats.capacity)
    metrics.stall_seconds.set(stats.stall_seconds)
    metrics.put_blocked_seconds.set(stats.put_blocked_seconds)
    metrics.samples_per_second.set(samples_per_second)
    if loss is not None:
        metrics.loss.set(loss)


def totals_of_ranks(group: RankGroup, stats: SourceStats, samples_per_second: float) -> SourceTotals:
    """Add up the figures of all ranks; every rank calls it at the same step.

    Args:
        group: the ranks.
        stats: figures of this rank's source of samples.
        samples_per_second: that this rank trained on lately.

    Raises:
        PeersLost: when another rank has gone.
    """
    population, unseen, received, presentations, blocked, stalled, ended, rate = group.sum(
        [
            stats.population,
            stats.unseen,
            stats.received,
            stats.presentations,
            stats.put_blocked_seconds,
            stats.stall_seconds / group.size,
            stats.production_ended,
            samples_per_second,
        ]
    ).tolist()
    return SourceTotals(
        population=int(population),
        unseen=int(unseen),
        received=int(received),
        presentations=int(presentations),
        put_blocked_seconds=blocked,
        stall_seconds=stalled,
        production_ended=ended == group.size,
        samples_per_second=rate,
    )
