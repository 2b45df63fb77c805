"""The supply of a training loop whose samples come from clients, through ingest and a buffer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from penstock_server.buffer import Buffer
from penstock_server.ingest import Ingest, Ledger
from penstock_server.trainer_rank.context import RankContext
from penstock_server.trainer_rank.redistribution import ReadPart
from penstock_server.trainer_rank.restore import counts_of, load_counts


@dataclass(frozen=True)
class Ledgers:
    """Which samples a rank has received; they exist before the fields are known.

    Attributes:
        trained: training samples.
        validated: time steps of held-out simulations.
    """

    trained: Ledger
    validated: Ledger


class StreamedSupply:
    """A `SampleSupply` that draws from a buffer which ingest fills.

    Args:
        context: the rank.
        buffer: gives the batches.
        ingest: fills the buffer.
        ledgers: of the samples that ingest has taken.
        coordinator_state: returns the coordinator's part of a checkpoint; called on rank 0.
        on_over: called when training has ended.
    """

    exhausted = "production ended"

    def __init__(
        self,
        context: RankContext,
        buffer: Buffer,
        ingest: Ingest,
        ledgers: Ledgers,
        *,
        coordinator_state: Callable[[], dict[str, Any]],
        on_over: Callable[[], None],
    ) -> None:
        self.source = buffer
        self._context, self._ingest, self._ledgers = context, ingest, ledgers
        self._coordinator_state, self._on_over = coordinator_state, on_over
        self._min_batches = context.study.training.min_batches
        self._production_ended = False

    def end_production(self, batches: int) -> None:
        """Let training end once [training] min_batches are done and the buffer is drained: no time step will come.

        Args:
            batches: training steps so far.
        """
        self._production_ended = True
        self.source.end_production(drain=batches >= self._min_batches)

    def after_step(self, batches: int) -> None:
        """Let the buffer drain once production has ended and [training] min_batches are done.

        Args:
            batches: training steps so far.
        """
        if self._production_ended and batches >= self._min_batches:
            self.source.drain()

    def before_conclusion(self) -> None:
        """Say that training is over, so that no client is given a simulation while the conclusion takes its time."""
        self._on_over()

    def state(self) -> dict[str, Any]:
        """Return the coordinator's state (rank 0), the ledgers, the samples and the counts."""
        coordinator = {"coordinator": self._coordinator_state()} if self._context.rank == 0 else {}
        # The ledgers before the buffer: what ingest adds in between is in the buffer, and `load` marks it.
        ledger = {"trained": self._ledgers.trained.state_dict(), "validated": self._ledgers.validated.state_dict()}
        buffer = self.source.state_dict()
        counts = counts_of(self._context.metrics)
        counts["incomplete"] += self._ingest.incomplete()  # their missing pieces will not come any more
        return {**coordinator, "ledger": ledger, "buffer": buffer, "counts": counts}

    def load(self, part: ReadPart) -> None:
        """Restore the samples, the ledgers and the counts of a checkpoint.

        Samples go on arriving while the parts of a checkpoint are read one after the other, so that its count of
        received samples may be ahead of its ledger or behind: the number received is taken from the ledger.

        Args:
            part: returns this rank's part of the checkpoint, by name.

        Raises:
            ValueError: when the checkpoint belongs to another buffer.
        """
        self.source.load_state_dict(part("buffer"))
        trained, ledger, restore = self._ledgers.trained, part("ledger"), self._context.restore
        trained.load_state_dict(ledger["trained"])
        self._ledgers.validated.load_state_dict(ledger["validated"])
        if restore is not None and restore.ranks == self._context.study.training.ranks:
            # After a change of the number of ranks, samples are marked where their clients will send repetitions.
            for simulation, sample in self.source.identifiers():
                trained.mark(simulation, sample)
        counts = part("counts")
        load_counts(self._context.metrics, {**counts, "received": trained.total() + counts["duplicates"]})

    def ingest_blocked_seconds(self) -> float:
        """Return for how many seconds checkpoints have had the buffer locked, since this process began."""
        return self.source.stats().snapshot_seconds
