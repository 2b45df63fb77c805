"""The buffer between ingest, which puts samples, and training, which draws batches.

One lock guards everything except the writing of slots and the copying of batches. It has two conditions: `_may_put` is
notified when there may be room, `_may_get` when a batch may have become possible. Nothing polls. A batch is drawn under
the lock and copied without it: a slot that is being copied is not freed before the copy is complete, even where its
sample has left the buffer, so no new sample can be written into it.
"""

from __future__ import annotations

import threading
import time

import numpy as np

from penstock_server.buffer.contents import Contents
from penstock_server.buffer.flow import Flow
from penstock_server.buffer.policies import POLICIES, PolicyName, check_sizes
from penstock_server.buffer.slots import Reserved, Slot, Slots
from penstock_server.buffer.state import BufferState, check_state, load_state, take_moment
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
        self._flow = Flow(self.policy, capacity, watermark, batch_size, presentations_per_sample)
        self._contents = Contents(storage(spec, capacity + spare), seed=seed)
        self._lock = threading.Lock()
        self._may_put = threading.Condition(self._lock)
        self._may_get = threading.Condition(self._lock)
        self._putting = WaitClock()
        self._stalled = WaitClock()
        self._snapshot_seconds = 0.0

    # Putting

    def reserve(self) -> Slot:
        """Reserve memory for one sample; as `reserve_many`."""
        with self._lock:
            indices = self._contents.reserve(1, self._spare)
        return self._contents.slot(indices)

    def reserve_many(self, number: int) -> Slots:
        """Reserve memory for samples of one simulation. Never blocks.

        Args:
            number: samples, at least 1.

        Returns:
            Slots of the storage; memory of its own where fewer spare slots are free.
        """
        with self._lock:
            indices = self._contents.reserve(number, self._spare)
        return self._contents.slots(indices, number)

    def commit(self, slot: Slot) -> bool:
        """Commit one sample; as `commit_many`. Returns False if the buffer was closed: the sample is lost."""
        return self.commit_many(slot) == 1

    def commit_many(self, slots: Reserved, begin: int = 0) -> int:
        """Turn filled slots into samples that may be drawn, one after the other.

        Blocks while the buffer is full and holds nothing that may be evicted, and while the limiter makes producers
        wait. To be called before `end_production`.

        Args:
            slots: the filled slots, with their identifiers set.
            begin: the first sample to commit, as a position in `slots.rows`; those before it have been committed.

        Returns:
            The first sample that has not been committed: the number of slots, less if the buffer was closed; then the
            samples from there on are lost.

        Raises:
            ValueError: sample `begin` is not the first that has not been committed or discarded.
        """
        with self._lock:
            slots.check_open(begin)
            while slots.settled < len(slots) and not self._flow.closed:
                if not self._insert(slots):
                    with self._putting:
                        self._may_put.wait_for(lambda: self._flow.closed or self._admitted(1) > 0)
            committed = slots.settled
            self._contents.release(slots)
            return committed

    def try_commit(self, slot: Slot) -> bool:
        """Commit one sample without waiting; as `try_commit_many`. Returns False if it may be tried again."""
        return self.try_commit_many(slot) == 1

    def try_commit_many(self, slots: Reserved, begin: int = 0) -> int:
        """Commit as many samples as possible without waiting.

        Args:
            slots: the filled slots, with their identifiers set.
            begin: the first sample to commit, as in `commit_many`.

        Returns:
            The first sample that would have to wait: the number of slots if all have been committed, `begin` if the
            buffer is closed. The others may be tried again.

        Raises:
            ValueError: as `commit_many`.
        """
        with self._lock:
            slots.check_open(begin)
            self._insert(slots)
            return slots.settled

    def discard(self, slot: Slot) -> None:
        """Give back one reserved slot; as `discard_many`."""
        self.discard_many(slot)

    def discard_many(self, slots: Reserved, begin: int = 0) -> None:
        """Give back reserved slots, from `begin` on, without committing them; arguments and errors as `commit_many`."""
        with self._lock:
            slots.check_open(begin)
            self._contents.release(slots)

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
            self._flow.check_batch(batch_size)
            if not self._settled(batch_size):
                with self._stalled:
                    self._may_get.wait_for(lambda: self._settled(batch_size), timeout)
            drawn = self._draw(batch_size) if self._ready(batch_size) else None
        return None if drawn is None else self._gather(drawn)

    def try_get(self, batch_size: int) -> Batch | None:
        """Draw a batch without waiting; as `get`, but returns None where that would wait."""
        with self._lock:
            self._flow.check_batch(batch_size)
            drawn = self._draw(batch_size) if self._ready(batch_size) else None
        return None if drawn is None else self._gather(drawn)

    # End of production

    def end_production(self, drain: bool = True) -> None:
        """Tell the buffer that no more samples will come: this lifts the watermark and the limiter.

        Args:
            drain: whether draws remove from now on, so that each sample is used once more. With False a reservoir goes
                on drawing with replacement until `drain` is called, so that a minimum number of batches can be reached;
                FIFO and FIRO drain in either case.
        """
        with self._lock:
            self._flow.ended = True
            self._flow.draining = self._flow.draining or drain or not self.policy.keeps
            self._wake_all()

    def drain(self) -> None:
        """End production, and remove every sample that is drawn from now on."""
        self.end_production(drain=True)

    def close(self) -> None:
        """End all waiting: pending and later calls of `commit` return False, those of `get` None."""
        with self._lock:
            self._flow.closed = True
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
            return self._flow.closed

    def stats(self) -> BufferStats:
        """Return all figures, taken at one moment."""
        with self._lock:
            return self._contents.stats(
                capacity=self.capacity,
                put_blocked_seconds=self._putting.seconds,
                stall_seconds=self._stalled.seconds,
                production_ended=self._flow.ended,
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
            snapshot = self._contents.snapshot(self._lock, self._count_lock_time)
            moment = take_moment(
                self._contents, snapshot, self.policy.name, self._putting.seconds, self._stalled.seconds
            )
            self._count_lock_time(time.monotonic() - since)
        return moment.state(self._lock)

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

    # The caller of the methods below holds the lock, except that of `_gather`.

    def _admitted(self, number: int) -> int:
        return self._flow.admitted(number, self._contents.population, self._contents.counters)

    def _ready(self, batch_size: int) -> bool:
        return self._flow.ready(batch_size, len(self._contents.population))

    def _exhausted(self) -> bool:
        # A producer that is blocked at the end of production still has a sample to put.
        return self._flow.ended and len(self._contents.population) == 0 and self._putting.waiting == 0

    def _settled(self, batch_size: int) -> bool:
        return self._flow.closed or self._ready(batch_size) or self._exhausted()

    def _wake_all(self) -> None:
        self._may_put.notify_all()
        self._may_get.notify_all()

    def _insert(self, block: Reserved) -> int:
        """Insert the samples that are admitted now; returns their number."""
        if not block.stored:
            # They are copied into free slots, some of which a batch that is being gathered may still need.
            self._may_put.wait_for(lambda: not self._contents.gathering)
        number = 0 if self._flow.closed else self._admitted(len(block) - block.settled)
        if number:
            begin = block.settled
            self._contents.insert(block, number, self.policy.evict, self.capacity)
            block.on_commit(block.numbers(begin, begin + number))
            self._may_get.notify_all()
        return number

    def _draw(self, batch_size: int) -> list[int]:
        remove = self._flow.removes()
        select = self.policy.drain if self._flow.draining else self.policy.select
        number = min(batch_size, len(self._contents.population)) if remove else batch_size
        slots = self._contents.draw(select, number, remove=remove)
        self._may_put.notify_all()
        return slots

    def _gather(self, slots: list[int]) -> Batch:
        """Copy a drawn batch."""
        try:
            return self._contents.storage.gather(np.array(slots))
        finally:
            with self._lock:
                self._contents.end_gather(slots)
                self._may_put.notify_all()

    def _count_lock_time(self, seconds: float) -> None:
        self._snapshot_seconds += seconds
