"""The buffer between ingest, which puts samples, and training, which draws batches.

One lock guards everything except the writing of slots. It has two conditions: `_may_put` is notified when there may be
room, `_may_get` when a batch may have become possible. Nothing polls. A batch is drawn and copied under one hold of the
lock, so that no eviction can overwrite a sample while it is copied.
"""

from __future__ import annotations

import threading
import time

import numpy as np

from penstock_server.buffer.contents import Contents, Slot
from penstock_server.buffer.limiter import Limiter
from penstock_server.buffer.policies import POLICIES, PolicyName, check_sizes
from penstock_server.buffer.state import BufferState, check_state, load_state, take_state
from penstock_server.buffer.stats import BufferStats, WaitClock
from penstock_server.buffer.storage import Storage, StorageMaker
from penstock_server.study import Batch, SampleSpec


class Buffer:
    """A buffer of at most `capacity` samples that gives batches of at most `batch_size`.

    Thread-safe. `reserve` and the writing of slots never wait for room; `commit` does. See `policies` for the policies.

    Args:
        spec: layout of a sample.
        policy: "fifo", "firo" or "reservoir".
        capacity: largest number of samples held.
        watermark: while production runs, a batch is drawn only above this population (FIRO, reservoir).
        presentations_per_sample: producers wait until training has drawn this many samples for each sample received;
            see `limiter`.
        batch_size: largest number of samples in a batch; the limiter lets training lag by one such batch.
        seed: seed of all random draws and evictions: the same calls in the same order give the same samples.
        spare: slots beyond the capacity for samples that are being filled.
        storage: makes the memory of the samples; by default on the host.

    Attributes:
        spec: layout of a sample.
        policy: rules for draws and evictions.
        capacity: largest number of samples held.
        watermark: population above which training may draw.
        batch_size: largest number of samples in a batch.

    Raises:
        ValueError: no batch could ever be drawn with these sizes.
    """

    def __init__(
        self,
        spec: SampleSpec,
        *,
        policy: PolicyName,
        capacity: int,
        watermark: int = 0,
        presentations_per_sample: float = 0.0,
        batch_size: int,
        seed: int = 0,
        spare: int = 64,
        storage: StorageMaker = Storage,
    ) -> None:
        check_sizes(policy, capacity, watermark, batch_size, presentations_per_sample)
        if spare < 1:
            raise ValueError(f"spare = {spare}: expected at least 1 slot for the sample being filled")
        self.spec = spec
        self.policy = POLICIES[policy]
        self.capacity = capacity
        self.watermark = watermark
        self.batch_size = batch_size
        self._spare = spare
        self._limiter = Limiter(
            presentations_per_sample, needed=self.policy.needed(batch_size, watermark), allowed=batch_size
        )
        self._contents = Contents(storage(spec, capacity + spare), seed=seed)
        self._ended = False
        self._draining = False
        self._closed = False
        self._lock = lock = threading.Lock()
        self._may_put = threading.Condition(lock)
        self._may_get = threading.Condition(lock)
        self._putting = WaitClock()
        self._stalled = WaitClock()
        self._snapshot_seconds = 0.0

    # Putting

    def reserve(self) -> Slot:
        """Reserve memory for a sample. Never blocks: where no spare slot is free, the sample gets memory of its own."""
        with self._lock:
            # At most `spare` slots of the storage are being filled, so that a commit below capacity finds a free one.
            population, storage = self._contents.population, self._contents.storage
            if storage.in_place and population.filling < self._spare:
                index = population.take_free()
                return Slot(storage.inputs[index], storage.targets[index], index)
        window = self.spec.window
        inputs = np.empty((window, self.spec.n_inputs), dtype=np.float32)
        return Slot(inputs, np.empty((window, self.spec.width), dtype=np.float32), None)

    def commit(self, slot: Slot) -> bool:
        """Turn a filled slot into a sample that may be drawn.

        Blocks while the buffer is full and holds nothing that may be evicted, and while the limiter makes producers
        wait. To be called before `end_production`.

        Args:
            slot: the filled slot, with its identifiers set.

        Returns:
            False if the buffer was closed: the sample is lost.

        Raises:
            ValueError: the slot has been committed or discarded before.
        """
        with self._lock:
            slot.check_open()
            if self._put_waits():
                with self._putting:
                    self._may_put.wait_for(lambda: self._closed or not self._put_waits())
            if self._closed:
                self._contents.release(slot)
                return False
            self._insert(slot)
            return True

    def try_commit(self, slot: Slot) -> bool:
        """Commit a slot without waiting.

        Args:
            slot: the filled slot, with its identifiers set.

        Returns:
            False if it would have to wait or the buffer is closed; the slot may then be tried again.

        Raises:
            ValueError: the slot has been committed or discarded before.
        """
        with self._lock:
            slot.check_open()
            if self._closed or self._put_waits():
                return False
            self._insert(slot)
            return True

    def discard(self, slot: Slot) -> None:
        """Give back a reserved slot without committing it.

        Args:
            slot: the slot.

        Raises:
            ValueError: the slot has been committed or discarded before.
        """
        with self._lock:
            slot.check_open()
            self._contents.release(slot)

    # Drawing

    def get(self, batch_size: int, timeout: float | None = None) -> Batch | None:
        """Draw a batch; blocks until the policy allows it.

        Args:
            batch_size: number of samples; while the buffer drains, the last batch may be smaller.
            timeout: longest wait in seconds; None for no limit.

        Returns:
            The batch; None if the buffer has been drained or closed, or after the timeout. `drained` and `closed`
            distinguish these cases.

        Raises:
            ValueError: `batch_size` is above that of the buffer.
        """
        with self._lock:
            self._check_batch(batch_size)
            if not self._settled(batch_size):
                with self._stalled:
                    self._may_get.wait_for(lambda: self._settled(batch_size), timeout)
            return self._draw(batch_size) if self._ready(batch_size) else None

    def try_get(self, batch_size: int) -> Batch | None:
        """Draw a batch without waiting.

        Args:
            batch_size: number of samples.

        Returns:
            The batch; None where `get` would wait or return None.

        Raises:
            ValueError: `batch_size` is above that of the buffer.
        """
        with self._lock:
            self._check_batch(batch_size)
            return self._draw(batch_size) if self._ready(batch_size) else None

    # End of production

    def end_production(self, drain: bool = True) -> None:
        """Tell the buffer that no more samples will come: this lifts the watermark and the limiter.

        Args:
            drain: whether draws remove from now on, so that each sample is used once more. With False a reservoir goes
                on drawing with replacement until `drain` is called, so that a minimum number of batches can be reached;
                FIFO and FIRO drain in either case.
        """
        with self._lock:
            self._ended = True
            self._draining = self._draining or drain or not self.policy.keeps
            self._wake_all()

    def drain(self) -> None:
        """End production, and remove every sample that is drawn from now on."""
        self.end_production(drain=True)

    def close(self) -> None:
        """End all waiting: pending and later calls of `commit` return False, those of `get` None."""
        with self._lock:
            self._closed = True
            self._wake_all()

    # Figures

    @property
    def drained(self) -> bool:
        """True once production has ended, no sample is left, and no commit is waiting."""
        with self._lock:
            return self._exhausted()

    @property
    def producer_blocked(self) -> bool:
        """True while a commit is waiting for room."""
        with self._lock:
            return self._putting.waiting > 0

    @property
    def closed(self) -> bool:
        """True after `close`."""
        with self._lock:
            return self._closed

    def stats(self) -> BufferStats:
        """Return all figures, taken at one moment."""
        with self._lock:
            return self._contents.stats(
                capacity=self.capacity,
                put_blocked_seconds=self._putting.seconds,
                stall_seconds=self._stalled.seconds,
                production_ended=self._ended,
                drained=self._exhausted(),
                snapshot_seconds=self._snapshot_seconds,
            )

    def identifiers(self) -> list[tuple[int, int]]:
        """Return (simulation, sample) of every sample held."""
        with self._lock:
            return self._contents.identifiers()

    # Checkpoints

    def state_dict(self) -> BufferState:
        """Return the state at this moment: samples with identifiers and seen counts, counters, and the generator.

        Slots that are being filled are left out. Inputs and targets are read later, once, while the buffer is used
        further (`BufferSnapshot`). Whether production has ended is not part of the state: the resumed study knows.
        """
        with self._lock:
            since = time.monotonic()
            state = take_state(
                self._contents,
                self._contents.snapshot(self._lock, self._count_lock_time),
                self.policy.name,
                put_blocked_seconds=self._putting.seconds,
                stall_seconds=self._stalled.seconds,
            )
            self._count_lock_time(time.monotonic() - since)
            return state

    def load_state_dict(self, state: BufferState) -> None:
        """Load a state into an unused buffer, which then continues as the other buffer would have.

        Args:
            state: what `state_dict` returned, with arrays.

        Raises:
            ValueError: the state has another policy or sample shape, or more samples than `capacity`.
            RuntimeError: the buffer has been used. Nothing is changed where an error is raised.
        """
        population = check_state(state, self.policy.name, self._contents.storage, self.capacity)
        with self._lock:
            if not self._contents.unused:
                raise RuntimeError("a state can be loaded only into a buffer that has not been used; make a new one")
            load_state(self._contents, state, population)
            self._putting = WaitClock(state["meta"]["put_blocked_seconds"])
            self._stalled = WaitClock(state["meta"]["stall_seconds"])
            self._wake_all()

    # The caller of all methods below holds the lock.

    def _put_waits(self) -> bool:
        contents = self._contents
        if self.policy.must_wait(contents.population, self.capacity):
            return True
        limited = not self._ended and self._limiter.holds(contents.counters.received, contents.counters.presentations)
        return limited and self._ready(self.batch_size)

    def _ready(self, batch_size: int) -> bool:
        if self._closed:
            return False
        if self._ended:
            return len(self._contents.population) > 0
        return len(self._contents.population) >= self.policy.needed(batch_size, self.watermark)

    def _exhausted(self) -> bool:
        # A producer that is blocked at the end of production still has a sample to put.
        return self._ended and len(self._contents.population) == 0 and self._putting.waiting == 0

    def _settled(self, batch_size: int) -> bool:
        return self._closed or self._ready(batch_size) or self._exhausted()

    def _wake_all(self) -> None:
        self._may_put.notify_all()
        self._may_get.notify_all()

    def _insert(self, slot: Slot) -> None:
        if len(self._contents.population) >= self.capacity:
            assert self.policy.evict is not None  # otherwise `_put_waits` is true
            self._contents.evict(self.policy.evict)
        self._contents.insert(slot)
        self._may_get.notify_all()

    def _draw(self, batch_size: int) -> Batch:
        remove = self._draining or not self.policy.keeps
        select = self.policy.drain if self._draining else self.policy.select
        number = min(batch_size, len(self._contents.population)) if remove else batch_size
        batch = self._contents.draw(select, number, remove=remove)
        self._may_put.notify_all()
        return batch

    def _count_lock_time(self, seconds: float) -> None:
        self._snapshot_seconds += seconds

    def _check_batch(self, batch_size: int) -> None:
        if not 1 <= batch_size <= self.batch_size:
            raise ValueError(
                f"a batch of {batch_size} samples was asked of a buffer made for 1 to {self.batch_size}: "
                "make it with that batch_size"
            )
