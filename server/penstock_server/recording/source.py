"""Samples from a recording, read by a torch DataLoader, for training without a stream.

Each epoch is a permutation of all samples, fixed by the seed and the number of the epoch. The epochs are concatenated
and cut into batches. A batch may extend from one epoch into the next, so that no batch is short, no sample is dropped,
and each sample is seen once per epoch.
"""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from penstock_server.recording.recording import Recording, RecordingError, RecordingReader
from penstock_server.recording.stats import RecordingStats
from penstock_server.study import Batch, Study, TrainingSection, windows_in

_AHEAD = 4  # batches that each process reads ahead
_SHARED_BYTES = 2**20
"""Larger batches are sent through shared memory, as torch does for tensors; smaller ones through the pipe, as arrays.

Measured: shared memory took 0.8 to 1.2 ms where a batch of 74 kB took 0.2 ms, and 7 ms against 20 ms for 8 MB.
"""
BatchRows = Tensor | NDArray[np.float32]
_START_METHOD = "forkserver"  # not "fork": this process has threads, and torch and HDF5 do not survive a fork then


class RecordedSamples(Dataset[tuple[Tensor, Tensor]]):
    """The samples of some simulations of a recording, numbered from 0 simulation by simulation.

    Args:
        recording: the recording.
        simulations: ids of the simulations, (n,).
        window: time steps of a sample.
        stride: time steps between the starts of two samples.
        time: time that the model sees, "step" or "physical".
    """

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
        """Return (simulation, first time step) of each of these samples."""
        position = np.searchsorted(self._ends, numbers, side="right")
        windows = np.asarray(numbers) - np.concatenate([[0], self._ends])[position]
        return list(zip(self._simulations[position].tolist(), (windows * self._stride).tolist(), strict=True))

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """Read one sample: inputs (window, n_inputs) and targets (window, width), float32."""
        inputs, targets = self.__getitems__([number])
        return inputs[0], targets[0]

    def __getitems__(self, numbers: list[int]) -> tuple[Tensor, Tensor]:
        """Read a batch, as DataLoader asks for it: inputs (n, window, n_inputs) and targets (n, window, width)."""
        rows = [self._reader.read(simulation, first, self._window) for simulation, first in self.places(numbers)]
        inputs, targets = zip(*rows, strict=True)
        return torch.from_numpy(np.stack(inputs)), torch.from_numpy(np.stack(targets))


class Epochs:
    """A batch sampler for a DataLoader: yields the sample numbers of each batch.

    Args:
        samples: number of samples of the dataset.
        batch_size: samples of a batch, at most `samples`.
        seed: seed of the permutations.
        begin: position in the sequence of all epochs to begin at.
        end: position to end at; None for no end.
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


class FileSource:
    """Samples drawn from a recording (`trainer_rank.sample_source.SampleSource`).

    The source ends after [training] epochs; without epochs it never ends if max_batches is given, and otherwise ends
    after one epoch. It does not end before min_batches have been drawn.

    Args:
        recording: the recording.
        study: the study to train.
        pin: give batches in page-locked memory (needs a GPU).

    Attributes:
        samples: the samples.
        producer_blocked: False, since nothing produces samples.

    Raises:
        RecordingError: the study's simulations have no sample in the recording.
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
                f"{recording.path}: no sample of {samples.window} time steps in the {study.solver.simulations} "
                "simulations to train on"
            )
        self._asked = training.batch_size
        self._batch_size = min(training.batch_size, number)
        self._seed, self._workers, self._pin = study.study.seed, training.loader_workers, pin
        self._end = _end(training, number, self._batch_size)
        self._position = self._batches = 0  # samples and batches drawn since the study began
        self._stall, self._waiting_since = 0.0, 0.0
        self._closed = False
        self._lock = threading.Lock()  # guards the figures
        self._drawing = threading.Lock()  # guards the loader
        self._loader: Iterator[tuple[BatchRows, BatchRows]] | None = None

    def get(self, batch_size: int, timeout: float | None = None) -> Batch | None:  # noqa: ARG002 - see below
        """Read the next batch.

        Args:
            batch_size: batch size of the study.
            timeout: ignored, since a file always has the next batch.

        Returns:
            The batch; None after the last epoch or `close`.

        Raises:
            ValueError: `batch_size` is not that of the study.
        """
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
        """True once the last epoch has ended."""
        with self._lock:
            return self._position == self._end

    producer_blocked = False

    def stats(self) -> RecordingStats:
        """The figures of this moment."""
        with self._lock:
            waiting = time.monotonic() - self._waiting_since if self._waiting_since else 0.0
            return RecordingStats(len(self.samples), self._position, self._stall + waiting)

    def close(self) -> None:
        """End the source and the processes that read ahead; `get` returns None from now on."""
        self._closed = True
        if self._drawing.acquire(blocking=False):  # otherwise `get` is using the loader on another thread
            try:
                self._loader = None  # which ends its processes
            finally:
                self._drawing.release()

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the sequence of epochs, for a checkpoint."""
        with self._lock:
            return {
                "samples": len(self.samples),
                "seed": self._seed,
                "position": self._position,
                "batches": self._batches,
                "stall_seconds": self._stall,
            }

    def load_state_dict(self, state: Any) -> None:
        """Continue from a checkpoint; to be called before the first batch is drawn.

        Args:
            state: what `state_dict` returned.

        Raises:
            RecordingError: the state belongs to another dataset or seed.
        """
        for name, here in (("samples", len(self.samples)), ("seed", self._seed)):
            if state[name] != here:
                raise RecordingError(
                    f"the checkpoint belongs to a dataset with {name} = {state[name]}, this one has {here}: resume "
                    "with the recording and the study that it began with"
                )
        self._position, self._batches, self._stall = state["position"], state["batches"], state["stall_seconds"]

    def _tensor(self, rows: BatchRows) -> Tensor:
        if isinstance(rows, Tensor):
            return rows
        tensor = torch.from_numpy(rows)
        return tensor.pin_memory() if self._pin else tensor

    def _start(self) -> Iterator[tuple[BatchRows, BatchRows]]:
        order = Epochs(len(self.samples), self._batch_size, seed=self._seed, begin=self._position, end=self._end)
        more: dict[str, Any] = {}
        if self._workers:
            torch.multiprocessing.set_forkserver_preload([__name__])
            more = {
                "prefetch_factor": _AHEAD,
                "multiprocessing_context": _START_METHOD,
                "worker_init_fn": _leave_signals,
            }
        # One iterator for all epochs, so that its processes continue to read ahead across the end of an epoch.
        loader = DataLoader(
            self.samples,
            batch_sampler=order,
            num_workers=self._workers,
            collate_fn=_serialised,  # `__getitems__` has collated the batch
            pin_memory=self._pin,
            # Otherwise the loader takes a seed from torch's global generator, and models that draw from that generator
            # would get other numbers after a resume.
            generator=torch.Generator(),
            **more,
        )
        return iter(loader)


def _end(training: TrainingSection, samples: int, batch_size: int) -> int | None:
    """Return the number of samples that are drawn in all; None for as many as training takes."""
    if training.epochs is None and training.max_batches is not None:
        return None
    return max((training.epochs or 1) * samples, training.min_batches * batch_size)


def _serialised(batch: Any) -> tuple[BatchRows, BatchRows]:
    """Return a batch serialised for the queue between reader and trainer."""
    inputs, targets = batch
    return batch if inputs.nbytes + targets.nbytes > _SHARED_BYTES else (inputs.numpy(), targets.numpy())


def _leave_signals(_worker: int) -> None:
    """Ignore Ctrl-C, which reaches the whole process group: the training process ends this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
