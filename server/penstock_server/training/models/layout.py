"""Rows of storage as fields on a structured grid and back, for models that know where a point's neighbours are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from penstock_server.study import SampleSpec


@dataclass(frozen=True)
class GridLayout:
    """Fields of equal shape laid on one grid; `components` is the sum of the fields' components.

    steps: time steps in a state (the bundle), 1 where a model predicts each time step alone.
    """

    spec: SampleSpec
    shape: tuple[int, ...]
    components: int
    steps: int

    @classmethod
    def of(cls, spec: SampleSpec, model: str) -> GridLayout:
        """Raises ValueError, naming `model`, for fields that do not share a grid of 1 or 2 dimensions."""
        shapes = {field.shape for field in spec.fields}
        shape = next(iter(shapes))
        if len(shapes) > 1 or len(shape) not in (1, 2):
            got = ", ".join(f"{f.name} {f.shape}" for f in spec.fields)
            raise ValueError(
                f"{model} needs fields on one structured grid of 1 or 2 dimensions, all of one shape; got {got}: "
                "leave other fields out, or use mlp"
            )
        steps = spec.bundle if spec.window > 1 else 1
        return cls(spec, shape, sum(f.components for f in spec.fields), steps)

    @property
    def channels(self) -> int:
        """Numbers at one grid point of a state."""
        return self.steps * self.components

    def points(self, rows: Tensor) -> Tensor:
        """Rows (batch, steps x width) to (batch, steps, *shape, components)."""
        fields = self.spec.split(rows.reshape(rows.shape[0], self.steps, self.spec.width))
        parts = list(fields.values())
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def rows(self, points: Tensor) -> Tensor:
        """Points (batch, steps, *shape, components) to rows (batch, steps x width); the inverse of `points`."""
        parts = torch.split(points, [f.components for f in self.spec.fields], dim=-1)
        return torch.cat([part.flatten(2) for part in parts], dim=2).flatten(1)

    def coordinates(self) -> Tensor:
        """Where the points lie, (*shape, dimensions), float32: i / n along each axis, the domain being the unit torus."""
        axes = [torch.arange(n, dtype=torch.float32) / n for n in self.shape]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def persistence(spec: SampleSpec, state: Tensor) -> Tensor:
    """The forecast that nothing changes: the state's last time step, once for each step of the bundle.

    state and the result are (batch, state_width). Models add what they have learnt to it.
    """
    return state[:, -spec.width :].repeat(1, spec.bundle)


def check_at_least(lowest: int, **options: int) -> None:
    """Raises ValueError, naming the option, for one that is no whole number of at least `lowest`."""
    for name, value in options.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
            raise ValueError(f"{name} = {value!r}: expected a whole number of at least {lowest}")
