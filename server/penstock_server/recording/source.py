"""Samples from a recording, through a torch DataLoader: what training draws from where nothing streams.

Each epoch is a permutation of all samples of its own, which the seed and the epoch's number fix. The epochs are laid end to end and cut
into batches: a batch may reach from one epoch into the next, so that none is short, no sample is dropped, and each is seen once an epoch.
"""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from penstock_server.recording.recording import Recording, RecordingError, RecordingReader
from penstock_server.study import Batch, Study, TrainingSection, windows_in

_AHEAD = 4  # batches that each process has ready or in the making
_SHARED_BYTES = 2**20
"""Batches larger than this come through shared memory, as torch sends tensors; smaller ones by value, through the pipe, as arrays: handing
over a piece of shared memory took 0.8 to 1.2 ms where a batch of 74 kB took 0.2 ms, and one of 8 MB 7 ms against 20 ms."""
Rows = Tensor | NDArray[np.float32]
_START_METHOD = "forkserver"  # not "fork": this process has threads, and torch's and HDF5's are not made for it


class RecordedSamples(Dataset[tuple[Tensor, Tensor]]):
    """The samples of some simulations of a recording, numbered from 0: simulation after simulation, each in the order of its windows."""

    def __init__(
        self, recording: Recording, simulations: NDArray[np.int64], *, window: int, stride: int, time: str
    ) -> None:
        self._reader = RecordingReader(recording, time)
        self._simulations, self._window, self._stride = simulations, window, stride
        counts = [windows_in(int(steps), window, stride) for steps in recording.steps[simulations]]
        self._ends = np.cumsum(counts, dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def places(self, numbers: list[int]) -> list[tuple[int, int]]:
        """Simulation and first time step of each of these samples."""
        at = np.searchsorted(self._ends, numbers, side="right")
        windows = np.asarray(numbers) - np.concatenate([[0], self._ends])[at]
        return list(zip(self._simulations[at].tolist(), (windows * self._stride).tolist(), strict=True))

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """inputs (window, n_inputs), targets (window, width); float32."""
        inputs, targets = self.__getitems__([number])
        return inputs[0], targets[0]

    def __getitems__(self, numbers: list[int]) -> tuple[Tensor, Tensor]:
        """A whole batch, as DataLoader asks for it: inputs (n, window, n_inputs), targets (n, window, width)."""
        rows = [self._reader.read(simulation, first, self._window) for simulation, first in self.places(numbers)]
        inputs, targets = zip(*rows, strict=True)
        return torch.from_numpy(np.stack(inputs)), torch.from_numpy(np.stack(targets))


class Epochs:
    """Sample numbers batch by batch: a DataLoader's batch sampler.

    Args:
        samples: there are; batch_size: at most `samples`. begin, end: which samples of the endless row of epochs; None: no end.
    """

    def __init__(self, samples: int, batch_size: int, *, seed: int, begin: int, end: int | None) -> None:
        self._samples, self._batch_size, self._seed, self._begin, self._end = samples, batch_size, seed, begin, end

    def __iter__(self) -> Iterator[list[int]]:
        row = self._row()
        while batch := list(itertools.islice(row, self._batch_size)):
            yield batch

    def _row(self) -> Iterator[int]:
        epoch, first = divmod(self._begin, self._samples)
        left = None if self._end is None else self._end - self._begin
        return itertools.islice(
            itertools.chain.from_iterable(
                self._permutation(e)[first if e == epoch else 0 :] for e in itertools.count(epoch)
            ),
            left,
        )

    def _permutation(self, epoch: int) -> list[int]:
        order: list[int] = np.random.default_rng([self._seed, epoch]).permutation(self._samples).tolist()
        return order


@dataclass(frozen=True)
class RecordingStats:
    """The figures of a recording that training draws from, at one moment; counts go back to the study's start, across checkpoints.

    Named as those of a buffer (`penstock_server.buffer.BufferStats`), so that logs and reports of offline studies read alike: all samples
    are there from the start and stay, and nothing produces more.

    Attributes:
        samples: number of samples in the recording.
        presentations: samples drawn, each draw counted.
        stall_seconds: time that training has waited for a batch, in seconds.
    """

    samples: int
    presentations: int
    stall_seconds: float

    @property
    def population(self) -> int:
        """Samples that may be drawn: all."""
        return self.samples

    @property
    def capacity(self) -> int:
        """Samples that there is room for: those that there are."""
        return self.samples

    @property
    def received(self) -> int:
        """Samples that there have been: all."""
        return self.samples

    @property
    def mean_population(self) -> float:
        """Mean population over all batches drawn."""
        return float(self.samples)

    @property
    def trained_unique(self) -> int:
        """Different samples drawn at least once."""
        return min(self.presentations, self.samples)

    @property
    def unseen(self) -> int:
        """Samples that have not been drawn yet."""
        return self.samples - self.trained_unique

    @property
    def times_seen(self) -> dict[int, int]:
        """Number of samples, by how often each has been drawn: once in each epoch."""
        epochs, more = divmod(self.presentations, self.samples)
        return {epochs: self.samples - more} | ({epochs + 1: more} if more else {})

    @property
    def put_blocked_seconds(self) -> float:
        """0: nothing produces samples."""
        return 0.0

    @property
    def production_ended(self) -> bool:
        """True: nothing produces samples."""
        return True


class FileSource:
    """A `sample_source.SampleSource` that draws from a recording.

    It ends after [training] epochs; where max_batches alone says when training ends, never; with neither, after one epoch. It does
    not end before min_batches are drawn.

    Args:
        pin: give batches in page-locked memory (needs a GPU).

    Raises RecordingError where the study's simulations have no sample in it.
    """

    def __init__(self, recording: Recording, study: Study, *, pin: bool = False) -> None:
        training, samples = study.training, study.samples
        self.samples = RecordedSamples(
            recording,
            recording.training(study.solver.simulations),
            window=samples.window,
            stride=samples.stride,
            time=samples.time,
        )
        number = len(self.samples)
        if not number:
            raise RecordingError(
                f"{recording.path}: no sample of {samples.window} time steps in the {study.solver.simulations} simulations to train on"
            )
        self._asked = training.batch_size
        self._batch_size = min(training.batch_size, number)
        self._seed, self._workers, self._pin = study.study.seed, training.loader_workers, pin
        self._end = _end(training, number, self._batch_size)
        self._position = self._batches = 0  # samples and batches drawn since the study began
        self._stall, self._waiting_since = 0.0, 0.0
        self._closed = False
        self._lock = threading.Lock()  # of the figures
        self._drawing = threading.Lock()  # of the loader
        self._loader: Iterator[tuple[Rows, Rows]] | None = None

    def get(self, batch_size: int, timeout: float | None = None) -> Batch | None:  # noqa: ARG002 - a file does not keep one waiting
        """The next batch; None after the last epoch, or when closed. ValueError for another size than the study's."""
        if batch_size != self._asked:
            raise ValueError(f"a batch of {batch_size} samples was asked of a source made for {self._asked}")
        with self._drawing:
            if self._closed:
                return None
            with self._lock:
                self._waiting_since = time.monotonic()
            try:
                if self._loader is None:
                    self._loader = self._start()
                drawn = next(self._loader, None)
            finally:
                with self._lock:
                    self._stall += time.monotonic() - self._waiting_since
                    self._waiting_since = 0.0
            if drawn is None:
                return None
            with self._lock:
                self._position += len(drawn[0])
                self._batches += 1
            return Batch(*map(self._tensor, drawn))

    @property
    def drained(self) -> bool:
        """The last epoch has ended."""
        with self._lock:
            return self._position == self._end

    producer_blocked = False

    def stats(self) -> RecordingStats:
        """The figures of this moment."""
        with self._lock:
            waiting = time.monotonic() - self._waiting_since if self._waiting_since else 0.0
            return RecordingStats(len(self.samples), self._position, self._stall + waiting)

    def close(self) -> None:
        self._closed = True
        if self._drawing.acquire(blocking=False):  # else the loader is in use, by a thread that closes it in its turn
            try:
                self._loader = None  # which ends its processes
            finally:
                self._drawing.release()

    def state_dict(self) -> dict[str, Any]:
        """How far it has come; the samples stay in the file."""
        with self._lock:
            return {
                "samples": len(self.samples),
                "seed": self._seed,
                "position": self._position,
                "batches": self._batches,
                "stall_seconds": self._stall,
            }

    def load_state_dict(self, state: Any) -> None:
        """Raises RecordingError for the state of another dataset or seed; call before the first batch is drawn."""
        for name, here in (("samples", len(self.samples)), ("seed", self._seed)):
            if state[name] != here:
                raise RecordingError(
                    f"the checkpoint belongs to a dataset with {name} = {state[name]}, this one has {here}: resume with the recording "
                    "and the study that it began with"
                )
        self._position, self._batches, self._stall = state["position"], state["batches"], state["stall_seconds"]

    def _tensor(self, rows: Rows) -> Tensor:
        if isinstance(rows, Tensor):
            return rows
        tensor = torch.from_numpy(rows)
        return tensor.pin_memory() if self._pin else tensor

    def _start(self) -> Iterator[tuple[Rows, Rows]]:
        order = Epochs(len(self.samples), self._batch_size, seed=self._seed, begin=self._position, end=self._end)
        more: dict[str, Any] = {}
        if self._workers:
            torch.multiprocessing.set_forkserver_preload([__name__])
            more = {
                "prefetch_factor": _AHEAD,
                "multiprocessing_context": _START_METHOD,
                "worker_init_fn": _leave_signals,
            }
        # One iterator for all epochs, so that its processes stay and go on reading where an epoch ends.
        loader = DataLoader(
            self.samples,
            batch_sampler=order,
            num_workers=self._workers,
            collate_fn=_sent,  # `__getitems__` has put the batch together
            pin_memory=self._pin,
            # Else it draws a seed for its processes from torch's global generator, which models draw from: they would see other
            # numbers after a resume.
            generator=torch.Generator(),
            **more,
        )
        return iter(loader)


def _end(training: TrainingSection, samples: int, batch_size: int) -> int | None:
    """How many samples are drawn in all; None: as many as training takes."""
    if training.epochs is None and training.max_batches is not None:
        return None
    return max((training.epochs or 1) * samples, training.min_batches * batch_size)


def _sent(batch: Any) -> tuple[Rows, Rows]:
    """A batch as it leaves the process that has read it."""
    inputs, targets = batch
    return batch if inputs.nbytes + targets.nbytes > _SHARED_BYTES else (inputs.numpy(), targets.numpy())


def _leave_signals(_worker: int) -> None:
    """Ctrl-C goes to the whole process group; when to end is for the process that trains to say."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
