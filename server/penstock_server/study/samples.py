"""The shape of a sample: its parameters and fields, and the position of each in a row of storage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

MAX_STEPS = 2**24
"""Largest number of time steps of one simulation."""


def windows_in(steps: int, window: int, stride: int) -> int:
    """Return the number of samples that a simulation gives.

    Args:
        steps: time steps of the simulation.
        window: time steps of a sample.
        stride: time steps between the starts of two samples.
    """
    return max(0, (steps - window) // stride + 1)


def sampled_steps(steps: int, window: int, stride: int) -> NDArray[np.bool_]:
    """Return which time steps of a simulation are in a sample.

    Args:
        steps: time steps of the simulation.
        window: time steps of a sample.
        stride: time steps between the starts of two samples.

    Returns:
        Shape (steps,).
    """
    number = np.arange(steps)
    last = (windows_in(steps, window, stride) - 1) * stride  # where the last sample starts; negative without a sample
    # A time step is in the sample that starts at or before it, or, where samples overlap, in an earlier one.
    sampled: NDArray[np.bool_] = (number - np.minimum(number // stride * stride, last) < window) & (last >= 0)
    return sampled


@dataclass(frozen=True)
class FieldSpec:
    """A field on the whole mesh.

    Attributes:
        name: name of the field.
        components: 1 for a scalar, 3 for a vector, 6 and 9 for symmetric and full tensors.
        shape: spatial shape, row-major: (ny, nx) on a structured grid, (n_cells,) on an unstructured mesh.
        reference: samples hold the values less this number.
    """

    name: str
    components: int
    shape: tuple[int, ...]
    reference: float = 0.0

    @property
    def points(self) -> int:
        """Number of points of the mesh."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Number of elements: points x components, ordered by point, components fastest."""
        return self.points * self.components


@dataclass(frozen=True)
class SampleSpec:
    """The layout of one sample.

    A sample is `window` consecutive time steps of one simulation. Each time step has an input row (parameters..., time)
    of length `n_inputs`, and a target row of length `width`: all fields, flattened and concatenated. With window > 1 a
    model maps `bundle` time steps to the `bundle` time steps that follow (temporal bundling, Brandstetter et al. 2022,
    section 3.1).

    Attributes:
        parameters: names of the parameters that the model sees.
        fields: the fields, in the order of a target row.
        window: time steps of a sample.
        bundle: time steps that the model takes and gives at once.
    """

    parameters: tuple[str, ...]
    fields: tuple[FieldSpec, ...]
    window: int = 1
    bundle: int = 1

    @property
    def n_inputs(self) -> int:
        """Length of an input row: the parameters and the time."""
        return len(self.parameters) + 1

    @property
    def width(self) -> int:
        """Length of a target row: the elements of all fields."""
        return sum(f.size for f in self.fields)

    @property
    def state_width(self) -> int:
        """Length of a model's state, input and output: `bundle` target rows, the earliest first."""
        return self.bundle * self.width

    @property
    def bytes(self) -> int:
        """Size of one stored sample (float32), in bytes."""
        return 4 * self.window * (self.n_inputs + self.width)

    def columns(self) -> dict[str, slice]:
        """Return field name to its columns in a target row."""
        columns, start = {}, 0
        for field in self.fields:
            columns[field.name] = slice(start, start + field.size)
            start += field.size
        return columns

    def split(self, rows: Tensor) -> dict[str, Tensor]:
        """Split target rows into fields, without a copy.

        Args:
            rows: target rows, (..., width).

        Returns:
            Field name to values (..., *shape, components), views of `rows`.
        """
        return {
            field.name: rows[..., columns].reshape(*rows.shape[:-1], *field.shape, field.components)
            for field, columns in zip(self.fields, self.columns().values(), strict=True)
        }

    def join(self, fields: dict[str, Tensor]) -> Tensor:
        """Join fields into target rows; the inverse of `split`.

        Args:
            fields: field name to values (batch, *shape, components).

        Returns:
            Target rows (batch, width), a copy.
        """
        import torch  # imported here: commands that only read a study need no torch

        return torch.cat([fields[f.name].reshape(fields[f.name].shape[0], f.size) for f in self.fields], dim=1)


@dataclass(frozen=True)
class Batch:
    """Samples drawn for one training step, float32, in raw units (not normalised).

    Attributes:
        inputs: (batch, window, n_inputs).
        targets: (batch, window, width).
    """

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return int(self.inputs.shape[0])

    def parts(self, number: int) -> list[Batch]:
        """Cut the batch into consecutive parts of equal size; the last may be smaller. Nothing is copied.

        Args:
            number: of parts at most; a batch of fewer samples has one part for each.
        """
        size = max(1, -(-len(self) // number))
        begins = range(0, len(self), size)
        return [Batch(self.inputs[begin : begin + size], self.targets[begin : begin + size]) for begin in begins]
