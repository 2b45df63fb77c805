"""Rows as fields on a structured grid and back, for models that use the neighbours of a point."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from penstock_server.study import SampleSpec


@dataclass(frozen=True)
class GridLayout:
    """Fields of equal shape on one grid.

    Attributes:
        spec: shapes of the samples.
        shape: number of points along each axis.
        components: sum of the fields' components.
        steps: time steps in a state (the bundle); 1 where a model predicts single time steps.
    """

    spec: SampleSpec
    shape: tuple[int, ...]
    components: int
    steps: int

    @classmethod
    def of(cls, spec: SampleSpec, model: str) -> GridLayout:
        """Return the layout of the fields.

        Args:
            spec: shapes of the samples.
            model: name of the model, for the error.

        Raises:
            ValueError: when the fields do not share one grid of 1 or 2 dimensions.
        """
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
        """Numbers of a state at one grid point."""
        return self.steps * self.components

    def points(self, rows: Tensor) -> Tensor:
        """Turn rows (batch, steps width) into points (batch, steps, *shape, components)."""
        fields = self.spec.split(rows.reshape(rows.shape[0], self.steps, self.spec.width))
        parts = list(fields.values())
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def rows(self, points: Tensor) -> Tensor:
        """Turn points (batch, steps, *shape, components) into rows (batch, steps width); the inverse of `points`."""
        parts = torch.split(points, [f.components for f in self.spec.fields], dim=-1)
        return torch.cat([part.flatten(2) for part in parts], dim=2).flatten(1)

    def coordinates(self) -> Tensor:
        """Return the coordinates of the points on the unit torus, i / n along each axis.

        Returns:
            Shape (*shape, dimensions), float32.
        """
        axes = [torch.arange(n, dtype=torch.float32) / n for n in self.shape]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def persistence(spec: SampleSpec, state: Tensor) -> Tensor:
    """Return the forecast that nothing changes: the state's last time step, once for each step of the bundle.

    Models add the change that they predict to it.

    Args:
        spec: shapes of the samples.
        state: shape (batch, state_width).

    Returns:
        Shape (batch, state_width).
    """
    return state[:, -spec.width :].repeat(1, spec.bundle)


def check_at_least(lowest: int, **options: int) -> None:
    """Check options of a model.

    Args:
        lowest: smallest value allowed.
        options: values by name.

    Raises:
        ValueError: when a value is not a whole number of at least `lowest`.
    """
    for name, value in options.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
            raise ValueError(f"{name} = {value!r}: expected a whole number of at least {lowest}")
