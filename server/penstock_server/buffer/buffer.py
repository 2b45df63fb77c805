"""The buffer between ingest, which puts, and training, which draws.

One lock guards everything but the writing of slots. Two conditions hang on it: `_may_put` is notified when room may have come
up, `_may_get` when a batch may have become possible. Nothing polls. Drawing and gathering happen under one hold of
the lock, so that no eviction can overwrite a sample while it is copied.
"""

from __future__ import annotations

import threading
import time
from dataclasses import asdict, dataclass, field
from weakref import WeakSet

import numpy as np

from penstock_server.buffer.limiter import Limiter
from penstock_server.buffer.policies import POLICIES, PolicyName, check_sizes
from penstock_server.buffer.population import Population
from penstock_server.buffer.snapshot import Snapshot
from penstock_server.buffer.state import BufferState, check_state
from penstock_server.buffer.stats import BufferStats, Counters, TimesSeen, WaitClock
from penstock_server.buffer.storage import Floats, Storage
from penstock_server.study import Batch, SampleSpec


@dataclass(eq=False)
class Slot:
    """Room for one sample, to be written by whoever reserved it.

    inputs: (window, n_inputs). targets: (window, width). Both float32, not initialised. simulation, sample: identifiers, set
    by the caller before `commit`. index: where it lies in the storage; None where it has memory of its own.
    """

    inputs: Floats
    targets: Floats
    index: int | None
    simulation: int = -1
    sample: int = -1
    open: bool = field(default=True, repr=False)


class Buffer:
    """Holds up to `capacity` samples and hands out batches of at most `batch_size`; see `policies` for what each policy does.

    Args:
        spec: what a sample holds.
        policy: "fifo", "firo" or "reservoir".
        capacity: samples held at most.
        watermark: while production runs, a batch is drawn only above this population (FIRO, reservoir).
        presentations_per_sample: producers wait for training to draw this often per sample received; see `limiter`.
        batch_size: samples in a batch; the limiter lets training lag by one such batch.
        seed: of all random draws and evictions: the same calls in the same order give the same samples.
        spare: slots beyond the capacity for samples that are still being filled.
        pin: gather batches into page-locked memory (needs a GPU).

    Raises ValueError for sizes with which no batch could ever be drawn.

    Any thread may call anything. `reserve` and the writing of slots never wait for room; `commit` does.
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
        pin: bool = False,
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
        slots = capacity + spare
        self._storage = Storage(spec, slots, pin=pin)
        self._population = Population(slots)
        self._times_seen = TimesSeen(slots)
        self._simulation = np.full(slots, -1, dtype=np.int64)
        self._sample = np.full(slots, -1, dtype=np.int64)
        self._rng = np.random.default_rng(seed)
        self._counters = Counters()
        self._ended = False
        self._draining = False
        self._closed = False
        lock = threading.Lock()
        self._lock = lock
        self._may_put = threading.Condition(lock)
        self._may_get = threading.Condition(lock)
        self._putting = WaitClock()
        self._stalled = WaitClock()
        self._snapshots: WeakSet[Snapshot] = WeakSet()  # those that somebody may still read
        self._snapshot_seconds = 0.0

    # Putting

    def reserve(self) -> Slot:
        """Room for a sample to be filled. Never blocks: without a spare slot, the sample gets memory of its own."""
        with self._lock:
            # At most `spare` slots fill in the storage, so that a commit below capacity always finds one free.
            if self._population.filling < self._spare:
                index = self._population.take_free()
                return Slot(self._storage.inputs[index], self._storage.targets[index], index)
        window = self.spec.window
        inputs = np.empty((window, self.spec.n_inputs), dtype=np.float32)
        return Slot(inputs, np.empty((window, self.spec.width), dtype=np.float32), None)

    def commit(self, slot: Slot) -> bool:
        """Make a filled slot a sample that may be drawn.

        Blocks while the buffer is full and holds nothing that may be evicted, or while the limiter holds producers back.
        False when the buffer was closed meanwhile: the sample is lost. Call it before `end_production`.
        """
        with self._lock:
            self._check_open(slot)
            if self._put_waits():
                with self._putting:
                    self._may_put.wait_for(lambda: self._closed or not self._put_waits())
            if self._closed:
                self._release(slot)
                return False
            self._insert(slot)
            return True

    def try_commit(self, slot: Slot) -> bool:
        """As `commit`, without waiting. False where it would wait or the buffer is closed: the slot can be tried again."""
        with self._lock:
            self._check_open(slot)
            if self._closed or self._put_waits():
                return False
            self._insert(slot)
            return True

    def discard(self, slot: Slot) -> None:
        """Give a reserved slot back unused."""
        with self._lock:
            self._check_open(slot)
            self._release(slot)

    # Drawing

    def get(self, batch_size: int, timeout: float | None = None) -> Batch | None:
        """Draw a batch; blocks until the policy allows it, or for so many seconds.

        None when production has ended and every sample has been drained, or when the buffer is closed; `drained` and `closed` tell
        these from a time that is up. While the buffer drains the last batch may be smaller than `batch_size`. ValueError for a size
        beyond the buffer's own.
        """
        with self._lock:
            self._check_batch(batch_size)
            if not self._settled(batch_size):
                with self._stalled:
                    self._may_get.wait_for(lambda: self._settled(batch_size), timeout)
            return self._draw(batch_size) if self._ready(batch_size) else None

    def try_get(self, batch_size: int) -> Batch | None:
        """As `get`, without waiting: None also where it would wait; `drained` tells the two apart."""
        with self._lock:
            self._check_batch(batch_size)
            return self._draw(batch_size) if self._ready(batch_size) else None

    # The end

    def end_production(self, drain: bool = True) -> None:
        """No more samples will come: watermark and limiter are lifted, and what is held is drained, each sample used once more.

        drain = False: a reservoir goes on drawing with replacement until `drain` is called, so that a minimum number
        of batches can be reached. FIFO and FIRO, whose draws remove anyway, drain in either case.
        """
        with self._lock:
            self._ended = True
            self._draining = self._draining or drain or not self.policy.keeps
            self._wake_all()

    def drain(self) -> None:
        """From now on draws remove; production has ended."""
        self.end_production(drain=True)

    def close(self) -> None:
        """Give up: waiting and later calls of `commit` return False, those of `get` None."""
        with self._lock:
            self._closed = True
            self._wake_all()

    # Looking

    @property
    def drained(self) -> bool:
        """Production has ended and no sample is left, nor one waiting to be put."""
        with self._lock:
            return self._exhausted()

    @property
    def pressed(self) -> bool:
        """Somebody waits to put a sample, and only a draw makes room for it."""
        with self._lock:
            return self._putting.waiting > 0

    @property
    def closed(self) -> bool:
        with self._lock:
            return self._closed

    def stats(self) -> BufferStats:
        """All figures, of one moment."""
        with self._lock:
            population, counters = self._population, self._counters
            return BufferStats(
                population=len(population),
                unseen=population.unseen,
                capacity=self.capacity,
                received=counters.received,
                presentations=counters.presentations,
                trained_unique=counters.trained_unique,
                evicted=counters.evicted,
                spilled=counters.spilled,
                batches=counters.batches,
                mean_population=counters.population_sum / max(1, counters.batches),
                times_seen=self._times_seen.histogram(population.held()),
                mean_times_seen=counters.presentations / max(1, counters.received),
                put_blocked_seconds=self._putting.seconds,
                stall_seconds=self._stalled.seconds,
                production_ended=self._ended,
                drained=self._exhausted(),
                snapshot_seconds=self._snapshot_seconds,
            )

    def identifiers(self) -> list[tuple[int, int]]:
        """(simulation, sample) of every sample held."""
        with self._lock:
            held = self._population.held()
            return list(zip(self._simulation[held].tolist(), self._sample[held].tolist(), strict=True))

    # Checkpoints

    def state_dict(self) -> BufferState:
        """All committed samples, their identifiers and seen counts, the counters and the generator's state, as of now.

        Slots still being filled are left out. Samples stand in the order that random draws refer to. Inputs and targets are
        read later, once, while the buffer is used further: see `snapshot`. Whether production has ended is not part of it: whoever
        resumes a study knows.
        """
        with self._lock:
            since = time.monotonic()
            held = self._population.held()
            position = np.empty(self._storage.slots, dtype=np.int64)
            position[held] = np.arange(len(held))
            snapshot = Snapshot(self._lock, self._storage, held, self._count_locked)
            self._snapshots.add(snapshot)
            state: BufferState = {
                "arrays": {
                    "inputs": snapshot.inputs,
                    "targets": snapshot.targets,
                    "simulation": self._simulation[held],
                    "sample": self._sample[held],
                    "times_seen": self._times_seen.held[held],
                    "times_seen_left": self._times_seen.left.copy(),
                    "arrival": position[self._population.arrivals()],
                },
                "meta": {
                    "policy": self.policy.name,
                    "unseen": self._population.unseen,
                    "counters": asdict(self._counters),
                    "put_blocked_seconds": self._putting.seconds,
                    "stall_seconds": self._stalled.seconds,
                    "rng": self._rng.bit_generator.state,
                },
            }
            self._count_locked(time.monotonic() - since)
            return state

    def load_state_dict(self, state: BufferState) -> None:
        """Take over the contents that `state_dict` returned; it then continues as the buffer there would have.

        Raises ValueError for a state of another policy or sample shape or with more samples than `capacity`, and
        RuntimeError in a buffer that has been used. Nothing is changed where it raises.
        """
        arrays, meta = state["arrays"], state["meta"]
        number = len(arrays["inputs"])
        population = check_state(state, self.policy.name, self._storage, self.capacity)
        with self._lock:
            if self._counters != Counters() or self._population.filling:
                raise RuntimeError("a state can be loaded only into a buffer that has not been used; make a new one")
            self._storage.inputs[:number] = arrays["inputs"]
            self._storage.targets[:number] = arrays["targets"]
            self._simulation[:number] = arrays["simulation"]
            self._sample[:number] = arrays["sample"]
            self._times_seen.held[:number] = arrays["times_seen"]
            self._times_seen.left = np.array(arrays["times_seen_left"], dtype=np.int64)
            self._population = population
            self._counters = Counters(**meta["counters"])
            self._putting = WaitClock(meta["put_blocked_seconds"])
            self._stalled = WaitClock(meta["stall_seconds"])
            self._rng.bit_generator.state = meta["rng"]
            self._wake_all()

    # All below is called with the lock held.

    def _put_waits(self) -> bool:
        if self.policy.must_wait(self._population, self.capacity):
            return True
        held = not self._ended and self._limiter.holds(self._counters.received, self._counters.presentations)
        return held and self._ready(self.batch_size)

    def _ready(self, batch_size: int) -> bool:
        if self._closed:
            return False
        if self._ended:
            return len(self._population) > 0
        return len(self._population) >= self.policy.needed(batch_size, self.watermark)

    def _exhausted(self) -> bool:
        # A producer that waits for room at the end of production still has a sample to bring.
        return self._ended and len(self._population) == 0 and self._putting.waiting == 0

    def _settled(self, batch_size: int) -> bool:
        return self._closed or self._ready(batch_size) or self._exhausted()

    def _wake_all(self) -> None:
        self._may_put.notify_all()
        self._may_get.notify_all()

    def _insert(self, slot: Slot) -> None:
        if len(self._population) >= self.capacity:
            assert self.policy.evict is not None  # else `_put_waits`
            self._remove(self.policy.evict(self._population, self._rng))
            self._counters.evicted += 1
        index = slot.index
        if index is None:
            index = self._population.take_free()
            self._counters.spilled += 1
            self._storage.inputs[index] = slot.inputs
            self._storage.targets[index] = slot.targets
        slot.open = False
        self._simulation[index] = slot.simulation
        self._sample[index] = slot.sample
        self._times_seen.held[index] = 0
        self._population.insert(index)
        self._counters.received += 1
        self._may_get.notify_all()

    def _draw(self, batch_size: int) -> Batch:
        population, counters = self._population, self._counters
        removes = self._draining or not self.policy.keeps
        select = self.policy.drain if self._draining else self.policy.select
        slots = select(population, min(batch_size, len(population)) if removes else batch_size, self._rng)
        batch = self._storage.gather(slots)
        counters.batches += 1
        counters.population_sum += len(population)
        counters.presentations += len(slots)
        np.add.at(self._times_seen.held, slots, 1)
        for slot in slots.tolist():
            counters.trained_unique += population.mark_seen(slot)
            if removes:
                self._remove(slot)
        self._may_put.notify_all()
        return batch

    def _remove(self, slot: int) -> None:
        for snapshot in self._snapshots:
            snapshot.leave(slot)
        self._times_seen.leave(slot)
        self._population.remove(slot)

    def _count_locked(self, seconds: float) -> None:
        self._snapshot_seconds += seconds

    def _release(self, slot: Slot) -> None:
        slot.open = False
        if slot.index is not None:
            self._population.give_back(slot.index)

    def _check_open(self, slot: Slot) -> None:
        if not slot.open:
            raise ValueError(
                f"the slot of simulation {slot.simulation}, sample {slot.sample} has been committed or discarded before"
            )

    def _check_batch(self, batch_size: int) -> None:
        if not 1 <= batch_size <= self.batch_size:
            raise ValueError(
                f"a batch of {batch_size} samples was asked of a buffer made for 1 to {self.batch_size}: "
                "make it with that batch_size"
            )
