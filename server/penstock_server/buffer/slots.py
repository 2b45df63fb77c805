"""Memory for samples that a producer fills before it commits them: a block of samples, or one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from penstock_server.buffer.storage import Floats, Indices


@dataclass(eq=False)
class Slots:
    """Memory for samples of one simulation, reserved for one producer, which fills it.

    Attributes:
        inputs: (m, window, n_inputs) float32, not initialised; only `rows` of it belong to these slots.
        targets: (m, window, width) float32, likewise.
        rows: row of each sample in `inputs` and `targets`, (number,).
        samples: number of each sample in its simulation, (number,) int64, set by the producer before they are
            committed.
        stored: whether `inputs` and `targets` are the storage of the buffer; False where they are memory of their own.
        simulation: id of the simulation, set by the producer before they are committed.
        on_commit: called with the numbers of samples as they become samples of the buffer, before any can be drawn; must
            not use the buffer.
        settled: samples that have been committed or discarded, in the order of `rows`.
    """

    inputs: Floats
    targets: Floats
    rows: Indices
    samples: Indices
    stored: bool
    simulation: int = -1
    on_commit: Callable[[Indices], None] = lambda _samples: None
    settled: int = 0

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.rows)

    def check_open(self, begin: int) -> None:
        """Check that the next sample to commit or discard is `begin`.

        Args:
            begin: sample, as a position in `rows`.

        Raises:
            ValueError: it has been committed or discarded, or one before it has not been.
        """
        if begin == self.settled < len(self.rows):
            return
        if begin < self.settled:
            raise ValueError(
                f"the slot of simulation {self.simulation}, sample {self.samples[begin]} has been committed or "
                "discarded before"
            )
        raise ValueError(
            f"begin = {begin} of {len(self.rows)} slots of simulation {self.simulation}: expected {self.settled}, "
            "the first that has not been committed or discarded"
        )


class Slot:
    """Memory for one sample: a block of one.

    Args:
        block: the block.

    Attributes:
        block: the block.
        inputs: (window, n_inputs) float32, not initialised.
        targets: (window, width) float32, not initialised.
    """

    __slots__ = ("block", "inputs", "targets")

    def __init__(self, block: Slots) -> None:
        row = int(block.rows[0])
        self.block = block
        self.inputs: Floats = block.inputs[row]
        self.targets: Floats = block.targets[row]

    @property
    def simulation(self) -> int:
        """Id of the simulation, set by the producer before `commit`."""
        return self.block.simulation

    @simulation.setter
    def simulation(self, simulation: int) -> None:
        self.block.simulation = simulation

    @property
    def sample(self) -> int:
        """Number of the sample in its simulation, set by the producer before `commit`."""
        return int(self.block.samples[0])

    @sample.setter
    def sample(self, sample: int) -> None:
        self.block.samples[0] = sample
