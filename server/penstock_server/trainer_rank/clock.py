"""The training clock: throughput and stalls, with validation and checkpoints left out (a trap that the SC 2023 paper names)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter

RECENT_SECONDS = 5.0


class TrainingClock:
    """Runs from the first batch. Read from any thread, written by the training thread."""

    def __init__(self) -> None:
        self._begun: float | None = None
        self._stall_before = 0.0  # time waited for the first batch: production had only begun
        self._aside = 0.0
        self._samples = 0
        self._earlier = {"wall": 0.0, "training": 0.0, "stall": 0.0, "samples": 0}  # of earlier incarnations
        self.last_step: float | None = None  # time.monotonic() of this life's last batch
        self._recent: deque[tuple[float, int]] = deque()  # (training seconds, samples) of the last batches

    @property
    def running(self) -> bool:
        return self._begun is not None

    @property
    def first_step(self) -> float | None:
        """time.monotonic() of this life's first batch."""
        return self._begun

    def begin(self, stall_seconds: float) -> None:
        """The first batch is there; stall_seconds: what was waited for it."""
        self._begun, self._stall_before = time.monotonic(), stall_seconds

    def batch(self, samples: int) -> None:
        """A batch has been trained on."""
        self._samples += samples
        self.last_step = time.monotonic()
        now = self._training_seconds()
        self._recent.append((now, self._samples))
        while self._recent[0][0] < now - RECENT_SECONDS and len(self._recent) > 2:
            self._recent.popleft()

    @contextmanager
    def aside(self, counter: Counter) -> Iterator[None]:
        """Time spent inside does not count as training; it is added to `counter` instead."""
        begun = time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - begun
            counter.inc(spent)
            if self._begun is not None:
                self._aside += spent

    def wall_seconds(self) -> float:
        """Seconds since the first batch, everything included, over all incarnations."""
        now = 0.0 if self._begun is None else time.monotonic() - self._begun
        return self._earlier["wall"] + now

    def training_seconds(self) -> float:
        """The same without validations and checkpoints."""
        return self._earlier["training"] + self._training_seconds()

    def samples_per_second(self) -> float:
        """Samples trained on per second of training."""
        seconds = self.training_seconds()
        return (self._earlier["samples"] + self._samples) / seconds if seconds > 0 else 0.0

    def recent_samples_per_second(self) -> float:
        """The same over the last seconds."""
        if len(self._recent) < 2:
            return 0.0
        (then, before), (now, after) = self._recent[0], self._recent[-1]
        return (after - before) / (now - then) if now > then else 0.0

    def stall_fraction(self, stall_seconds: float) -> float:
        """Share of training time spent waiting for data, given the buffer's total waiting time."""
        seconds = self.training_seconds()
        return self._stall(stall_seconds) / seconds if seconds > 0 else 0.0

    def state_dict(self, stall_seconds: float) -> dict[str, float]:
        """For a checkpoint: what counts as earlier from then on."""
        return {
            "wall": self.wall_seconds(),
            "training": self.training_seconds(),
            "stall": self._stall(stall_seconds),
            "samples": self._earlier["samples"] + self._samples,
        }

    def load_state_dict(self, state: dict[str, float]) -> None:
        self._earlier = dict(state)

    def _stall(self, stall_seconds: float) -> float:
        # Before the first batch, everything that the source has waited belongs to earlier runs or to the start of production.
        now = 0.0 if self._begun is None else max(0.0, stall_seconds - self._stall_before)
        return self._earlier["stall"] + now

    def _training_seconds(self) -> float:
        return 0.0 if self._begun is None else time.monotonic() - self._begun - self._aside
