"""How the trainer ranks agree on each step, so that none ever waits for one that will not come.

Before every step each rank has, or has not, a batch of its own; the streams that they receive may be wildly uneven. They add up their
votes and all see the same sums, from which each draws the same conclusion. A step is made

- when every rank that still expects samples has a batch;
- without those that have none, when somewhere samples wait for room, which only a step makes, and the solver that waits may be
  the very one whose samples the others lack; or when one rank has waited PATIENCE for the others. Whoever is passed over
  is not waited for again until it has a batch.

A rank without a batch takes part in the step with no gradient of its own, and so keeps the same weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from penstock_server.study import Batch
from penstock_server.trainer_rank.sample_source import SampleSource
from penstock_server.training import RankGroup

PATIENCE = 5.0  # seconds that a rank with a batch waits for one without
LOOK = 0.2  # seconds that a rank without a batch waits for one before it votes


@dataclass(frozen=True)
class Step:
    """What the ranks have agreed on. batch: this rank's, None where it takes part without. log, checkpoint: after the step.

    samples_seen: by all ranks, what their normalisers know.
    """

    batch: Batch | None
    log: bool
    checkpoint: bool
    samples_seen: float


class CommonStep:
    """Draws this rank's batches and votes.

    Args:
        source: where batches come from. batch_size: this rank's share of it.
        over: whether training is to end, for whatever reason of this rank. log_due, checkpoint_due: asked on rank 0 alone.
        samples_seen: how many samples this rank's normaliser knows.
    """

    def __init__(
        self,
        group: RankGroup,
        source: SampleSource,
        batch_size: int,
        *,
        over: Callable[[], bool],
        log_due: Callable[[], bool],
        checkpoint_due: Callable[[], bool],
        samples_seen: Callable[[], float],
    ) -> None:
        self._group, self._source, self._batch_size = group, source, batch_size
        self._over, self._samples_seen = over, samples_seen
        self._log_due, self._checkpoint_due = log_due, checkpoint_due
        self._passed_over = False

    def next(self) -> Step | None:
        """Wait for the next step; None when training ends: one rank is to end it, or none will have a batch any more.

        Raises PeersLost where another rank has gone.
        """
        batch: Batch | None = None
        since = 0.0
        while True:
            over = self._over()
            if batch is None and not over:
                batch = self._source.get(self._batch_size, self._patience())
                since = time.monotonic()
                self._passed_over = self._passed_over and batch is None
            waited = batch is not None and time.monotonic() - since > PATIENCE
            first = self._group.rank == 0
            votes = self._group.sum(
                (
                    batch is not None,
                    batch is None and self._source.drained,
                    batch is None and self._passed_over,
                    self._source.producer_blocked or waited,
                    over,
                    first and self._log_due(),
                    first and self._checkpoint_due(),
                    self._samples_seen(),
                )
            )
            have, drained, passed_over, urgent, ending, log, checkpoint, seen = votes
            if not have and (ending or drained == self._group.size):
                return None
            # What has been drawn is trained on, also when training ends: it counts as presented.
            if have and (urgent or ending or have + drained + passed_over >= self._group.size):
                self._passed_over = batch is None
                return Step(batch, bool(log), bool(checkpoint), float(seen))

    def _patience(self) -> float | None:
        if self._group.alone:
            return None
        return 0.0 if self._passed_over else LOOK
