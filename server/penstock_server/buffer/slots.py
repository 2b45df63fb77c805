"""Memory for samples that a producer fills before it commits them: a block of samples, or one."""

from __future__ import annotations

import numpy as np

from penstock_server.buffer.storage import Floats, Indices


class Block:
    """What the buffer knows of memory for samples of one simulation, reserved for one producer.

    Attributes:
        indices: slot of each sample in the storage of the buffer, or its row in memory of its own; plain integers, as
            they are used one by one.
        stored: whether the samples are in the storage of the buffer; else they are copied when they are committed.
        simulation: id of the simulation, set by the producer before the samples are committed.
        settled: samples that have been committed or discarded, in the order of `indices`.
    """

    __slots__ = ("indices", "settled", "simulation", "stored")

    def __init__(self, indices: list[int], stored: bool) -> None:
        self.indices, self.stored = indices, stored
        self.simulation = -1
        self.settled = 0

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.indices)

    def numbers(self, begin: int, end: int) -> list[int]:
        """Return the numbers that samples have in their simulation."""
        raise NotImplementedError

    def arrays(self, position: int, /) -> tuple[Floats, Floats]:
        """Return inputs and targets of a sample."""
        raise NotImplementedError

    def check_open(self, begin: int) -> None:
        """Check that the next sample to commit or discard is `begin`.

        Args:
            begin: sample, as a position in `indices`.

        Raises:
            ValueError: it has been committed or discarded, or one before it has not been.
        """
        if begin == self.settled < len(self.indices):
            return
        if begin < self.settled:
            raise ValueError(
                f"the slot of simulation {self.simulation}, sample {self.numbers(begin, begin + 1)[0]} has been "
                "committed or discarded before"
            )
        raise ValueError(
            f"begin = {begin} of {len(self)} slots of simulation {self.simulation}: expected {self.settled}, "
            "the first that has not been committed or discarded"
        )


class Slots(Block):
    """Memory for samples of one simulation, which a producer fills.

    Args:
        inputs: see the attributes.
        targets: see the attributes.
        indices: as in `Block`.
        stored: as in `Block`.

    Attributes:
        inputs: (m, window, n_inputs) float32, not initialised; only `rows` of it belong to these slots.
        targets: (m, window, width) float32, likewise.
        rows: row of each sample in `inputs` and `targets`, (number,) int64.
        samples: number of each sample in its simulation, (number,) int64, set by the producer before they are
            committed.
    """

    __slots__ = ("inputs", "rows", "samples", "targets")

    def __init__(self, inputs: Floats, targets: Floats, indices: list[int], stored: bool) -> None:
        super().__init__(indices, stored)
        self.inputs, self.targets = inputs, targets
        self.rows: Indices = np.array(indices, dtype=np.int64)
        self.samples: Indices = np.full(len(indices), -1, dtype=np.int64)

    def numbers(self, begin: int, end: int) -> list[int]:
        """Return the numbers that samples have in their simulation."""
        return self.samples[begin:end].tolist()

    def arrays(self, position: int, /) -> tuple[Floats, Floats]:
        """Return inputs and targets of a sample."""
        row = self.indices[position]
        return self.inputs[row], self.targets[row]


class Slot(Block):
    """Memory for one sample, which a producer fills.

    Args:
        inputs: see the attributes.
        targets: see the attributes.
        index: slot of the storage; None where the sample has memory of its own.

    Attributes:
        inputs: (window, n_inputs) float32, not initialised.
        targets: (window, width) float32, not initialised.
        sample: number of the sample in its simulation, set by the producer before `commit`.
    """

    __slots__ = ("inputs", "sample", "targets")

    def __init__(self, inputs: Floats, targets: Floats, index: int | None) -> None:
        super().__init__([0 if index is None else index], index is not None)
        self.inputs, self.targets = inputs, targets
        self.sample = -1

    def numbers(self, begin: int, end: int) -> list[int]:
        """Return the number that the sample has in its simulation."""
        return [self.sample][begin:end]

    def arrays(self, _position: int, /) -> tuple[Floats, Floats]:
        """Return inputs and targets of the sample."""
        return self.inputs, self.targets
