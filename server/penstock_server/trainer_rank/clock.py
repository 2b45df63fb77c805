"""The training clock: throughput and stalls, without the time of validation and checkpoints.

Counting that time is a mistake that the SC 2023 paper warns of.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter

RECENT_SECONDS = 5.0


class TrainingClock:
    """Measures training time from the first batch on. Any thread reads it; the training thread writes it.

    Attributes:
        last_step: time.monotonic() of this process's last batch; None before the first.
    """

    def __init__(self) -> None:
        self._begun: float | None = None
        self._stall_before = 0.0  # seconds waited for the first batch: production had only begun
        self._excluded = 0.0
        self._samples = 0
        self._earlier = {"wall": 0.0, "training": 0.0, "stall": 0.0, "samples": 0}  # of earlier runs
        self.last_step: float | None = None
        self._recent: deque[tuple[float, int]] = deque()  # (training seconds, samples) of the last batches

    @property
    def running(self) -> bool:
        """Whether the first batch has been there."""
        return self._begun is not None

    @property
    def first_step(self) -> float | None:
        """time.monotonic() of this process's first batch; None before it."""
        return self._begun

    def begin(self, stall_seconds: float) -> None:
        """Start the clock with the first batch.

        Args:
            stall_seconds: time that training has waited for samples so far, as the source of samples counts it.
        """
        self._begun, self._stall_before = time.monotonic(), stall_seconds

    def batch(self, samples: int) -> float:
        """Count a training step.

        Args:
            samples: number of samples that this rank has trained on in it.

        Returns:
            Seconds of training time since the step before, or since the first began.
        """
        self._samples += samples
        self.last_step = time.monotonic()
        now = self._training_seconds()
        since = now - self._recent[-1][0] if self._recent else now
        self._recent.append((now, self._samples))
        while self._recent[0][0] < now - RECENT_SECONDS and len(self._recent) > 2:
            self._recent.popleft()
        return since

    @contextmanager
    def excluded(self, counter: Counter) -> Iterator[None]:
        """Add the time spent inside to a counter instead of training time.

        Args:
            counter: in seconds.
        """
        begun = time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - begun
            counter.inc(spent)
            if self._begun is not None:
                self._excluded += spent

    def wall_seconds(self) -> float:
        """Return the seconds since the first batch, everything included, over all runs of the server."""
        now = 0.0 if self._begun is None else time.monotonic() - self._begun
        return self._earlier["wall"] + now

    def training_seconds(self) -> float:
        """Return `wall_seconds` without validations and checkpoints."""
        return self._earlier["training"] + self._training_seconds()

    def samples_per_second(self) -> float:
        """Return the samples trained on per second of training."""
        seconds = self.training_seconds()
        return (self._earlier["samples"] + self._samples) / seconds if seconds > 0 else 0.0

    def recent_samples_per_second(self) -> float:
        """Return the samples trained on per second of training, over the last RECENT_SECONDS."""
        if len(self._recent) < 2:
            return 0.0
        (then, before), (now, after) = self._recent[0], self._recent[-1]
        return (after - before) / (now - then) if now > then else 0.0

    def stall_fraction(self, stall_seconds: float) -> float:
        """Return the share of training time that was spent waiting for samples.

        Args:
            stall_seconds: time waited so far, as the source of samples counts it.
        """
        seconds = self.training_seconds()
        return self._stall(stall_seconds) / seconds if seconds > 0 else 0.0

    def state_dict(self, stall_seconds: float) -> dict[str, float]:
        """Return the figures for a checkpoint, those of earlier runs included.

        Args:
            stall_seconds: time waited so far, as the source of samples counts it.
        """
        return {
            "wall": self.wall_seconds(),
            "training": self.training_seconds(),
            "stall": self._stall(stall_seconds),
            "samples": self._earlier["samples"] + self._samples,
        }

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue from a checkpoint; for a clock that does not run yet.

        Args:
            state: as `state_dict` returned it.
        """
        self._earlier = dict(state)

    def _stall(self, stall_seconds: float) -> float:
        # The source's waiting before the first batch belongs to earlier runs or to the start of production.
        now = 0.0 if self._begun is None else max(0.0, stall_seconds - self._stall_before)
        return self._earlier["stall"] + now

    def _training_seconds(self) -> float:
        return 0.0 if self._begun is None else time.monotonic() - self._begun - self._excluded
