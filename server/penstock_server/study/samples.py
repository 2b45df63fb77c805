"""The shape of a sample: which parameters go in, which fields come out, and where each lies in a row of storage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

MAX_STEPS = 2**24


def windows_in(steps: int, window: int, stride: int) -> int:
    """How many samples a simulation of `steps` time steps makes."""
    return max(0, (steps - window) // stride + 1)


@dataclass(frozen=True)
class FieldSpec:
    """A field on the whole mesh.

    shape: spatial shape, row-major: (ny, nx) on a structured grid, (n_cells,) on an unstructured mesh.
    components: 1 for a scalar, 3 for a vector, 6 and 9 for symmetric and full tensors.
    """

    name: str
    components: int
    shape: tuple[int, ...]

    @property
    def points(self) -> int:
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Elements of the field: points x components, ordered by point with components fastest."""
        return self.points * self.components


@dataclass(frozen=True)
class SampleSpec:
    """What one sample holds.

    A sample is `window` consecutive time steps of one simulation. Each has an input row
    (parameters..., time), `n_inputs` long, and a target row: all fields, flattened and laid end to end, `width` long.
    With window > 1 a model maps the `bundle` time steps before to the `bundle` that follow (temporal bundling,
    Brandstetter et al. 2022, section 3.1).
    """

    parameters: tuple[str, ...]
    fields: tuple[FieldSpec, ...]
    window: int = 1
    bundle: int = 1

    @property
    def n_inputs(self) -> int:
        return len(self.parameters) + 1

    @property
    def width(self) -> int:
        return sum(f.size for f in self.fields)

    @property
    def state_width(self) -> int:
        """Length of what a model takes and gives: `bundle` target rows laid end to end, the earliest first."""
        return self.bundle * self.width

    @property
    def bytes(self) -> int:
        """Bytes of one stored sample (float32)."""
        return 4 * self.window * (self.n_inputs + self.width)

    def columns(self) -> dict[str, slice]:
        """Where each field lies in a target row."""
        out, at = {}, 0
        for field in self.fields:
            out[field.name] = slice(at, at + field.size)
            at += field.size
        return out

    def split(self, rows: Tensor) -> dict[str, Tensor]:
        """Target rows (..., width) to named fields (..., *shape, components); views, no copy."""
        return {
            field.name: rows[..., columns].reshape(*rows.shape[:-1], *field.shape, field.components)
            for field, columns in zip(self.fields, self.columns().values(), strict=True)
        }

    def join(self, fields: dict[str, Tensor]) -> Tensor:
        """Named fields (batch, *shape, components) to target rows (batch, width); the inverse of `split`."""
        import torch  # here, since `penstock status` reads a study and needs no torch

        return torch.cat([fields[f.name].reshape(fields[f.name].shape[0], f.size) for f in self.fields], dim=1)


@dataclass(frozen=True)
class Batch:
    """Samples drawn for one training step, raw (not normalised), float32.

    inputs: (batch, window, n_inputs). targets: (batch, window, width).
    """

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return int(self.inputs.shape[0])
