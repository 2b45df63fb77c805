"""Which simulations ingest takes, and where it puts what it makes of their pieces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from penstock_server.buffer import Buffer, Reserved
from penstock_server.ingest.ledger import Ledger
from penstock_server.native import Moments

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


class TimeSteps(Protocol):
    """A store of held-out time steps."""

    def add(self, simulation: int, step: int, inputs: Floats, targets: Floats) -> bool:
        """Take one time step.

        Args:
            simulation: its simulation's id.
            step: index of the time step.
            inputs: shape (n_inputs,).
            targets: shape (width,).

        Returns:
            False when the time step is already there.
        """


@dataclass(frozen=True)
class SimulationIds:
    """The ids of a study's simulations: those to train on first, then the held-out ones, then replacements.

    Attributes:
        training: number of simulations to train on.
        held_out: number of validation simulations.
        replacements: number of ids kept for training simulations that replace failed ones.
    """

    training: int
    held_out: int
    replacements: int = 0

    @property
    def total(self) -> int:
        """Number of ids; they run from 0 to total - 1."""
        return self.training + self.held_out + self.replacements

    @property
    def held_out_ids(self) -> range:
        """Ids of the held-out simulations."""
        return range(self.training, self.training + self.held_out)


@dataclass(frozen=True)
class SampleSinks:
    """Where ingest puts samples, held-out time steps and static fields.

    Attributes:
        buffer: takes training samples; None where all simulations are held out.
        put: commits filled slots, however long that takes; returns False when the study is over.
        validation: takes held-out time steps.
        statistics: called with the inputs, shape (1, window, n_inputs), and the targets, shape (1, window, width), of
            each new training sample.
        moments: called with the inputs of new training samples, shape (n, n_inputs), and with the statistics of each of
            their fields, where their values have been looked at already.
        trained: ledger of training samples.
        validated: ledger of held-out time steps.
        on_steps: called with the simulation and the numbers of whole time steps, shape (n,), with arrays of inputs,
            shape (m, n_inputs), and targets, shape (m, width), and with the row of each time step in them, shape (n,).
        on_static: called with the name and the values, shape (points, components), of each complete static field.
    """

    buffer: Buffer | None
    put: Callable[[Reserved], bool]
    validation: TimeSteps
    statistics: Callable[[Floats, Floats], None]
    moments: Callable[[Floats, list[list[Moments]]], None]
    trained: Ledger
    validated: Ledger
    on_static: Callable[[str, NDArray[np.float64]], None]
    on_steps: Callable[[int, Indices, Floats, Floats, Indices], None] = lambda *_: None
