"""Making the coordinator of a study, new or restored from a checkpoint, and its metrics; the same for all engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock_server.coordinator import Coordinator, make_plan, make_spares, make_welcome
from penstock_server.network import Assignment
from penstock_server.study import Schema, Study
from penstock_server.telemetry import ServerRun

if TYPE_CHECKING:  # the coordinator's process needs no torch
    from penstock_server.checkpoint import Checkpoint
    from penstock_server.trainer_rank import TrainerRank


@dataclass(frozen=True)
class RestoredState:
    """What a checkpoint holds for the coordinator.

    Attributes:
        schema: the fields that the clients had agreed on.
        coordinator: the coordinator's own part of the checkpoint.
        arrived: number of samples in the ledgers, by simulation id; time steps for a held-out simulation.
    """

    schema: Schema
    coordinator: Mapping[str, Any]
    arrived: Mapping[int, int]


def configure_from_checkpoint(rank: TrainerRank, checkpoint: Checkpoint) -> RestoredState:
    """Configure a trainer rank, which loads its parts of the checkpoint it was made with.

    Args:
        rank: made with `restore=checkpoint`, not configured yet.
        checkpoint: the checkpoint.

    Returns:
        The coordinator's part, with what has arrived at this rank.
    """
    schema = Schema.from_state_dict(checkpoint.parts["schema"])
    rank.configure(schema)
    arrived = {simulation: rank.arrived(simulation) for simulation in range(rank.simulations)}
    return RestoredState(schema, checkpoint.parts["coordinator"], arrived)


def make_coordinator(
    study: Study,
    run: ServerRun,
    endpoints: tuple[str, ...],
    *,
    on_schema: Callable[[Schema], bool],
    on_assignment: Callable[[Assignment], bool],
    in_process: bool = False,
    restored: RestoredState | None = None,
    again: Sequence[int] = (),
) -> Coordinator:
    """Make the coordinator of a study.

    Args:
        study: the study.
        run: incarnation, events and metrics of the coordinator's process.
        endpoints: addresses of the trainer ranks' data sockets, rank 0 first.
        on_schema: as for `Coordinator`.
        on_assignment: as for `Coordinator`.
        in_process: whether the only clients are in this process, on the coordinator's thread.
        restored: what a checkpoint holds for it; None for a new study.
        again: simulations under way at the checkpoint that are repeated as the same attempt, before all others and in
            this order.

    Raises:
        PenstockError: the parameter space cannot be sampled as asked.
    """
    coordinator = Coordinator(
        make_plan(study),
        make_welcome(study, endpoints, in_process=in_process),
        study,
        run,
        on_schema=on_schema,
        on_assignment=on_assignment,
        schema=None if restored is None else restored.schema,
        spares=make_spares(study),
    )
    if restored is not None:
        coordinator.load_state_dict(restored.coordinator, restored.arrived.__getitem__, again=again)
    return coordinator


def set_coordinator_gauges(coordinator: Coordinator, run: ServerRun) -> None:
    """Set the gauges of the coordinator's process.

    Args:
        coordinator: the coordinator.
        run: incarnation and metrics of its process.
    """
    metrics = run.metrics
    metrics.incarnation.set(run.incarnation)
    metrics.simulations(vars(coordinator.counts()))
    metrics.client_blocked_seconds.set(coordinator.blocked_seconds)
    metrics.remaining_seconds.set(coordinator.remaining_seconds)
