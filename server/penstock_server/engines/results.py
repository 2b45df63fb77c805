"""What coordinator and trainer ranks say of a study: while it runs, for its status; at its end, for its report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from penstock_server.coordinator import Coordinator, SimulationCounts
from penstock_server.engines.ending import mostly_failed
from penstock_server.engines.engine import StudyStatus
from penstock_server.telemetry import Metrics

if TYPE_CHECKING:  # the coordinator's process needs no torch
    from penstock_server.trainer_rank import RankStatus


@dataclass(frozen=True)
class CoordinatorStatus:
    """The coordinator's part of a study's status.

    Attributes:
        simulations: simulations by state.
        wanted_workers: number of worker processes that have something to do.
        production_over: True when no time step will arrive any more.
        given_up: host, process id and name of the key of clients that were given up.
    """

    simulations: SimulationCounts = field(default_factory=SimulationCounts)
    wanted_workers: int = 0
    production_over: bool = False
    given_up: tuple[tuple[str, int, str], ...] = ()


@dataclass(frozen=True)
class CoordinatorResults:
    """The coordinator's part of a study's report.

    Attributes:
        simulations: simulations by state.
        expected: training samples that should have arrived.
        blocked_seconds: time that clients have waited for credit.
        failures: why each failed simulation failed, by simulation id.
        refused: messages refused on the control socket, by reason.
        warnings: warnings of this process, for the report.
    """

    simulations: SimulationCounts = field(default_factory=SimulationCounts)
    expected: int = 0
    blocked_seconds: float = 0.0
    failures: Mapping[int, str] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudyResults:
    """Everything that a report takes from the server.

    Attributes:
        ranks: the trainer ranks at their end, rank 0 first.
        unique: training samples that have arrived, each counted once.
        coordinator: the coordinator's part.
    """

    ranks: Sequence[RankStatus]
    unique: int
    coordinator: CoordinatorResults


def coordinator_status(coordinator: Coordinator) -> CoordinatorStatus:
    """Ask a coordinator for its part of the status."""
    return CoordinatorStatus(
        simulations=coordinator.counts(),
        wanted_workers=coordinator.wanted_workers,
        production_over=coordinator.production_over,
        given_up=coordinator.given_up(),
    )


def coordinator_results(
    coordinator: Coordinator, metrics: Metrics, arrived: Callable[[int], int], warnings: tuple[str, ...]
) -> CoordinatorResults:
    """Ask a coordinator for its part of the report.

    Args:
        coordinator: at the study's end.
        metrics: of its process.
        arrived: number of samples in the ledgers of all ranks, by simulation id.
        warnings: of its process.
    """
    return CoordinatorResults(
        simulations=coordinator.counts(),
        expected=coordinator.expected(arrived),
        blocked_seconds=coordinator.blocked_seconds,
        failures=coordinator.failures(),
        refused=metrics.refusals(),
        warnings=warnings,
    )


def study_outcome(
    ranks: Sequence[RankStatus], simulations: SimulationCounts, error: str, stopped: str
) -> tuple[str, str]:
    """Decide how a study has ended.

    Args:
        ranks: the trainer ranks, rank 0 first.
        simulations: simulations by state.
        error: why the engine has failed; "" where it has not.
        stopped: why the study was asked to stop; "" where it was not.

    Returns:
        "finished", "stopped" or "failed", and the reason.
    """
    error = error or next((r.error for r in ranks if r.error), "")
    if error:
        return "failed", error
    if stopped:
        return "stopped", stopped
    if failed := mostly_failed(simulations):
        return "failed", failed
    if not any(r.buffer.received for r in ranks if r.buffer is not None):
        return "failed", "no simulation has sent a sample to train on: events.jsonl and logs/ say why"
    return "finished", ranks[0].over


def study_status(
    ranks: Sequence[RankStatus], coordinator: CoordinatorStatus, *, elapsed: float, error: str, stopped: str
) -> StudyStatus:
    """Put the status of a study together.

    Args:
        ranks: the trainer ranks, rank 0 first.
        coordinator: the coordinator's part.
        elapsed: seconds since the study's start.
        error: why the engine has failed; "" where it has not.
        stopped: why the study was asked to stop; "" where it was not.
    """
    buffers = [r.buffer for r in ranks if r.buffer is not None]
    first = ranks[0]
    phase, message = "starting" if not buffers else "draining" if coordinator.production_over else "training", ""
    if error or stopped or all(r.over and not r.lost for r in ranks):
        phase, message = study_outcome(ranks, coordinator.simulations, error, stopped)
    return StudyStatus(
        phase=phase,
        elapsed=elapsed,
        simulations=coordinator.simulations,
        received=sum(b.received for b in buffers),
        population=sum(b.population for b in buffers),
        capacity=sum(b.capacity for b in buffers),
        batches=first.batches,
        samples_per_second=sum(r.samples_per_second for r in ranks),
        loss=first.loss,
        validation_relative_l2=first.validation.relative_l2 if first.validation else None,
        wanted_workers=coordinator.wanted_workers,
        given_up=coordinator.given_up,
        message=message,
    )
