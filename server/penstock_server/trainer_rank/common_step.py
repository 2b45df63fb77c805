"""How the trainer ranks agree on each training step, so that none ever waits for one that will not come.

Before every step each rank has, or has not, a batch of its own; the streams that they receive may be very uneven. The
ranks add up their votes. All see the same sums and so draw the same conclusion. A step is made

- when every rank that still expects samples has a batch;
- without those that have none, when samples wait for room somewhere, which only a step makes: the solver that waits may
  be the very one whose samples the other ranks lack;
- without those that have none, when one rank has waited PATIENCE_SECONDS for the others. A rank that was passed over is
  not waited for again until it has a batch.

A rank without a batch takes part in the step with a gradient of zero, and so keeps the same weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from penstock_server.study import Batch
from penstock_server.trainer_rank.sample_source import SampleSource
from penstock_server.training import RankGroup

PATIENCE_SECONDS = 5.0  # that a rank with a batch waits for one without
POLL_SECONDS = 0.2  # that a rank without a batch waits for one before it votes


@dataclass(frozen=True)
class AgreedStep:
    """A training step that all ranks have agreed on.

    Attributes:
        batch: this rank's own; None where it takes part without one.
        log: whether a log line is written after the step.
        checkpoint: whether a checkpoint is written after the step.
        rows_seen: input rows that the normalisers of all ranks together have seen.
    """

    batch: Batch | None
    log: bool
    checkpoint: bool
    rows_seen: float


class CommonStep:
    """Draws this rank's batches and votes on the next step.

    Args:
        group: the ranks.
        source: gives batches.
        batch_size: samples that this rank draws.
        ending: returns whether this rank wants training to end.
        log_due: returns whether a log line is due; asked on rank 0.
        checkpoint_due: returns whether a checkpoint is due; asked on rank 0.
        rows_seen: returns how many input rows this rank's normaliser has seen.
    """

    def __init__(
        self,
        group: RankGroup,
        source: SampleSource,
        batch_size: int,
        *,
        ending: Callable[[], bool],
        log_due: Callable[[], bool],
        checkpoint_due: Callable[[], bool],
        rows_seen: Callable[[], float],
    ) -> None:
        self._group, self._source, self._batch_size = group, source, batch_size
        self._ending, self._rows_seen = ending, rows_seen
        self._log_due, self._checkpoint_due = log_due, checkpoint_due
        self._passed_over = False
        self._ended = False  # a rank wants training to end: from then on no rank draws

    def next(self) -> AgreedStep | None:
        """Wait for the next step.

        Returns:
            The step; None when training ends: a rank wants it to end, or no rank will have a batch any more.

        Raises:
            PeersLost: when another rank has gone.
        """
        batch: Batch | None = None
        since = 0.0
        while True:
            ending = self._ended or self._ending()
            if batch is None and not ending:
                batch = self._source.get(self._batch_size, self._timeout())
                since = time.monotonic()
                self._passed_over = self._passed_over and batch is None
            waited = batch is not None and time.monotonic() - since > PATIENCE_SECONDS
            first = self._group.rank == 0
            votes = self._group.sum(
                (
                    batch is not None,
                    batch is None and self._source.drained,
                    batch is None and self._passed_over,
                    self._source.producer_blocked or waited,
                    ending,
                    first and self._log_due(),
                    first and self._checkpoint_due(),
                    self._rows_seen(),
                )
            )
            have, drained, passed_over, urgent, ended, log, checkpoint, rows_seen = votes
            self._ended = bool(ended)
            if not have and (ended or drained == self._group.size):
                return None
            # A batch that has been drawn is trained on, also when training ends: it counts as presented.
            if have and (urgent or ended or have + drained + passed_over >= self._group.size):
                self._passed_over = batch is None
                return AgreedStep(batch, bool(log), bool(checkpoint), float(rows_seen))

    def _timeout(self) -> float | None:
        """Seconds to wait for a batch; None: until there is one."""
        if self._group.alone:
            return None
        return 0.0 if self._passed_over else POLL_SECONDS
